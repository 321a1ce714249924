"""Packages with a dkms.conf, built against a toy kernel's build tree, in the sandbox."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from quizmatrix.build.module import dkmsconf
from quizmatrix.build.module.build import ModuleOptions, build
from quizmatrix.build.module.module import find_module
from quizmatrix.build.parts import Built, NotForThisKernel
from quizmatrix.core import paths, process, sandbox
from quizmatrix.core.errors import DamagedError, HostError, UnpreparedError, UsageError
from quizmatrix.core.jobserver import JobServer
from quizmatrix.core.sandbox import Sandbox
from quizmatrix.kernel import buildlayer
from quizmatrix.kernel.artifact import Kernel
from tests.unit.test_module import RELEASE, SOURCE, cached, command, kernel, make_kernel, write_module

__all__ = ["cached", "kernel"]

UPDATES = f"usr/lib/modules/{RELEASE}/updates/dkms"

CONF = """
PACKAGE_NAME="pack"
PACKAGE_VERSION="1.0+x"
MAKE[0]="make -C ${kernel_source_dir} M=${dkms_tree}/${PACKAGE_NAME}/${PACKAGE_VERSION}/build"
BUILT_MODULE_NAME[0]="hello"
DEST_MODULE_LOCATION[0]="/extra"
"""


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    return write_package(tmp_path / "a pack")


def write_package(folder: Path, *, name: str = "pack", module: str = "hello") -> Path:
    write_module(folder, module)
    text = CONF.replace('"pack"', f'"{name}"').replace('"hello"', f'"{module}"')
    (folder / "dkms.conf").write_text(text)
    return folder


def add(folder: Path, *lines: str) -> None:
    with (folder / "dkms.conf").open("a") as file:
        file.write("\n".join(lines) + "\n")


def write_script(path: Path, *lines: str) -> None:
    path.write_text("\n".join(["#!/bin/sh", *lines]))
    path.chmod(0o755)


def make(
    folder: Path,
    kernel: Kernel,
    *words: str,
    is_sandboxed: bool = True,
    tell: Callable[[str], None] = lambda _said: None,
) -> Built:
    pool = JobServer(2)
    options = ModuleOptions(make=words, is_sandboxed=is_sandboxed)
    try:
        return anyio.run(build, find_module(str(folder)), kernel, options, pool, tell)
    finally:
        pool.close()


def installed(built: Built) -> set[str]:
    return {str(path.relative_to(built.layer)) for path in built.layer.rglob("*") if path.is_file()}


def read(folder: Path, kernel: Kernel, name: str) -> str:
    """A file that a package's programs left in the copy."""
    return (find_module(str(folder)).work / kernel.record.key / name).read_text()


# What is built.


def test_a_package_is_built_as_its_file_says(pack: Path, kernel: Kernel) -> None:
    before = {path: path.read_bytes() for path in pack.rglob("*")}
    assert installed(make(pack, kernel)) == {f"{UPDATES}/hello.ko"}
    assert buildlayer.has_module(kernel, "hello")
    assert {path: path.read_bytes() for path in pack.rglob("*")} == before
    assert read(pack, kernel, "compiled") == "hello in the pool\n"
    assert make(pack, kernel).was_reused
    (pack / "hello.c").write_text(SOURCE.format(release=RELEASE) + "int more;\n")
    assert not make(pack, kernel).was_reused


@pytest.mark.parametrize("is_sandboxed", [True, False])
def test_its_own_folder_by_bashs_name(pack: Path, kernel: Kernel, is_sandboxed: bool) -> None:
    """bash expands `$PWD` where it reads the file, which is another folder than the one where MAKE runs."""
    add(pack, 'MAKE[0]="make -C $kernel_source_dir M=$PWD"', 'CLEAN="make no-such-target"')
    assert installed(make(pack, kernel, is_sandboxed=is_sandboxed)) == {f"{UPDATES}/hello.ko"}
    log = find_module(str(pack)).log(kernel).read_text()
    assert log.startswith("$ make no-such-target\n$ make KERNELRELEASE=")
    assert "No rule" not in log  # an error that dkms ignores


@pytest.mark.parametrize("is_sandboxed", [True, False])
def test_every_directive(pack: Path, kernel: Kernel, is_sandboxed: bool) -> None:
    (pack / "deep/er").mkdir(parents=True)
    (pack / "deep/er/README").touch()
    (pack / "patches").mkdir()
    for number, old, new in ((1, "one", "two"), (2, "two", "three"), (3, "three", "wrong")):
        patch = f"--- a/text\n+++ b/text\n@@ -1 +1 @@\n-{old}\n+{new}\n"
        (pack / f"patches/{number}.patch").write_text(patch)
    (pack / "text").write_text("one\n")
    write_script(pack / "before", 'echo "$0 $* $(pwd -P)" >before.out')
    write_script(pack / "after.sh", "echo after >after.out")
    (pack / "not-executable").write_text("#!/bin/sh\nexit 1\n")
    values = '"$kernelver $arch $module $module_version $1" "$source_tree" "$CC" "$(uname -r) $(uname -m)"'
    add(
        pack,
        'PATCH[0]="1.patch"; PATCH[1]="2.patch"; PATCH[2]="3.patch"',
        'PATCH_MATCH[1]="^6[.][[:digit:]]"; PATCH_MATCH[2]="^5"',
        'PRE_BUILD="before a b"',
        'POST_BUILD="after.sh"',
        'CLEAN="echo clean >clean.out; false"',
        'MAKE[0]="false"; MAKE_MATCH[0]="^5"',
        'MAKE[1]="false"',
        """MAKE[2]='find $dkms_tree/pack/1.0+x/build -name text >find.out; '""",
        f"""MAKE[2]+='printf "%s\\n" {values} >make.out; make -C $kernel_source_dir M=$PWD; """
        """mv hello.ko deep/er/; gcc -g -c -o same.ko hello.c'""",
        'MAKE_MATCH[2]="6.*toy$"',
        "BUILT_MODULE_LOCATION[0]=deep/er",
        'DEST_MODULE_NAME[0]="renamed"',
        "BUILT_MODULE_NAME[1]=same; DEST_MODULE_LOCATION[1]=/kernel/x; STRIP[1]=no",
    )
    built = make(pack, kernel, is_sandboxed=is_sandboxed)
    assert installed(built) == {f"{UPDATES}/renamed.ko", f"{UPDATES}/same.ko"}
    assert b".debug_info" in (built.layer / UPDATES / "same.ko").read_bytes()
    assert b".debug_info" not in (built.layer / UPDATES / "renamed.ko").read_bytes()
    assert read(pack, kernel, "text") == "three\n"
    assert "before a b " in read(pack, kernel, "before.out")
    assert "/text" in read(pack, kernel, "find.out")
    assert read(pack, kernel, "clean.out") == "clean\n"
    assert read(pack, kernel, "after.out") == "after\n"
    lines = read(pack, kernel, "make.out").splitlines()
    assert lines[0].startswith(f"{RELEASE} x86_64 pack 1.0+x ")
    assert lines[2:] == ["gcc", f"{RELEASE} x86_64"]
    assert (lines[1] == "/usr/src") == is_sandboxed


def test_what_is_not_set_has_its_default(pack: Path, kernel: Kernel) -> None:
    (pack / "dkms.conf").write_text("PACKAGE_NAME=hello\nPACKAGE_VERSION=1\nDEST_MODULE_LOCATION=/extra\n")
    assert installed(make(pack, kernel)) == {f"{UPDATES}/hello.ko"}


def test_values_are_read_as_dkms_reads_them(pack: Path, kernel: Kernel) -> None:
    """White space, double quotes and variables in them: as in the packages of OpenZFS and others."""
    write_script(pack / "before", 'printf "%s\n" "$@" >before.out')
    value = '"before\n  --a=\\"$arch\\"\n  --host=\\"\\"\n  \'*\' "'
    add(pack, f"PRE_BUILD={value}", "MAKE[0]='echo  $kernelver >make.out; '\"${MAKE[0]}\"")
    add(pack, """POST_BUILD='before "not closed'""")
    make(pack, kernel)
    assert read(pack, kernel, "make.out") == f"{RELEASE}\n"
    assert read(pack, kernel, "before.out").splitlines() == ['"not', "closed"]
    add(pack, "POST_BUILD=")
    make(pack, kernel)
    assert read(pack, kernel, "before.out").splitlines() == ["--a=x86_64", "--host=", "'*'"]


def test_makes_variables_win_over_a_makefiles_own(pack: Path, kernel: Kernel) -> None:
    (pack / "top.mk").write_text(
        "ARCH := none\nKDIR := /lib/modules/$(shell uname -r)/build\n"
        "all:\n\techo $(ARCH) $(X) >all.out\n\t$(MAKE) -C $(KDIR) M=$(CURDIR)\n"
    )
    add(pack, "MAKE[0]='make -f top.mk all'")
    make(pack, kernel, "X=a b")
    assert read(pack, kernel, "all.out") == "x86_64 a b\n"


def test_packages_that_build_on_each_other(
    tmp_path: Path, cached: Kernel, capsys: pytest.CaptureFixture[str]
) -> None:
    top = write_package(tmp_path / "top", name="top", module="high")
    base = write_package(tmp_path / "base", name="base", module="low")
    add(top, "BUILD_DEPENDS[0]=base")
    add(top, """MAKE[0]='cp -r $dkms_tree/base/1.0+x/build/Kbuild seen && '"${MAKE[0]}" """)
    (top / "Kbuild").write_text("obj-m := high.o\nneeds := low_do\n")
    (base / "Kbuild").write_text("obj-m := low.o\nexports := low_do\n")
    only = ("--only", "6.1-x86_64", "--source", "debian-source", "--offline", "-q")
    status, out, err = command(capsys, "build", str(top), str(base), *only)
    assert (status, out.count("built")) == (0, 2), err
    assert read(top, cached, "seen") == (base / "Kbuild").read_text()


# For which kernels.


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('BUILD_EXCLUSIVE_KERNEL="^(5|4)[.]"', "BUILD_EXCLUSIVE_KERNEL is `^(5|4)[.]`"),
        ("BUILD_EXCLUSIVE_KERNEL_MIN=6.2", "BUILD_EXCLUSIVE_KERNEL_MIN is 6.2"),
        ("BUILD_EXCLUSIVE_KERNEL_MAX=6.1", "BUILD_EXCLUSIVE_KERNEL_MAX is 6.1"),
        ('BUILD_EXCLUSIVE_ARCH="^s390"', "BUILD_EXCLUSIVE_ARCH is `^s390`"),
        ('BUILD_EXCLUSIVE_CONFIG="CONFIG_64BIT CONFIG_X"', "has CONFIG_X, and this kernel lacks it"),
        ('BUILD_EXCLUSIVE_CONFIG="!CONFIG_64BIT"', "has !CONFIG_64BIT, and this kernel has it"),
        ("echo no ACPI here >&2; BUILD_EXCLUSIVE_ARCH=none", "`none`: no ACPI here"),
    ],
)
def test_a_kernel_that_is_left_out(
    pack: Path, cached: Kernel, line: str, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    make(pack, cached)
    add(pack, line)
    with pytest.raises(NotForThisKernel) as caught:
        make(pack, cached)
    assert why in str(caught.value)
    assert not buildlayer.has_module(cached, "hello")
    status, out, _ = command(
        capsys, "build", str(pack), "--only", "6.1-x86_64", "--source", "debian-source", "--offline", "-q"
    )
    assert status == 0
    assert "not for this kernel" in out.splitlines()[2]
    assert why in out


@pytest.mark.parametrize(
    "line",
    [
        "BUILD_EXCLUSIVE_KERNEL_MIN=6.1.9; BUILD_EXCLUSIVE_KERNEL_MAX=6.1.10",
        'BUILD_EXCLUSIVE_CONFIG="CONFIG_64BIT !CONFIG_ABSENT"; BUILD_EXCLUSIVE_ARCH="(x86_64|arm)"',
        'grep -q CONFIG_64BIT=y "$kernel_source_dir/.config" || BUILD_EXCLUSIVE_ARCH=none',
    ],
)
def test_a_kernel_that_is_not_left_out(pack: Path, kernel: Kernel, line: str) -> None:
    add(pack, line)
    make(pack, kernel)


# Bad input.


def test_commands_reach_nothing(
    pack: Path, kernel: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At any step: while the file is evaluated and while it builds."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "secret").write_text("secret")
    secret = Path(__file__).resolve()  # in a folder that may be no home
    monkeypatch.setenv("HOME", str(home))
    attempts = [
        f"touch '{pack}/touched' '{home}/touched' /usr/touched /etc/touched '{kernel.folder}/touched'",
        f"cat '{home}/secret' /root/.* /home/*/.* /etc/shadow '{secret}' >>$1/reached 2>/dev/null",
        "[ $(grep -c : /proc/net/dev) = 1 ] || echo network >>$1/reached",
        "[ $(ls -d /proc/[0-9]* | wc -l) -lt 30 ] || echo processes >>$1/reached",
        "rm -rf $kernel_source_dir/ $HOME /run /var 2>/dev/null; true",
    ]
    write_script(pack / "attempts", *attempts[:4], "touch $1/tried", "true")
    add(
        pack,
        "sh ./attempts /tmp",
        "[ ! -s /tmp/reached ] || { cat /tmp/reached >&2; exit 1; }",
        'PRE_BUILD="attempts ."',
        *attempts[4:],
    )
    make(pack, kernel)
    assert read(pack, kernel, "tried") == ""
    assert read(pack, kernel, "reached") == ""
    assert not [*tmp_path.rglob("touched"), *Path("/usr").glob("touched"), *Path("/etc").glob("touched")]
    assert (kernel.folder / "kernel.json").is_file()


def test_a_folder_of_the_cache_on_another_disk(pack: Path, kernel: Kernel, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk/file").write_text("there\n")
    moved = paths.cache_dir() / "moved"
    moved.symlink_to(tmp_path / "disk")
    write_script(pack / "before", f"cat '{moved}/file' >before.out")
    add(pack, 'PRE_BUILD="before"')
    make(pack, kernel)
    assert read(pack, kernel, "before.out") == "there\n"


def test_a_host_without_a_sandbox(
    pack: Path, kernel: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    for path in [*Path("/usr/bin").iterdir(), *Path("/bin").iterdir()]:
        if path.name != "bwrap" and not (programs / path.name).is_symlink():
            (programs / path.name).symlink_to(path)
    add(pack, "touch ran")
    monkeypatch.setenv("PATH", str(programs))
    assert process.find_program("bwrap") is None
    with pytest.raises(HostError, match="needs a sandbox") as caught:
        make(pack, kernel)
    assert "apt-get install bubblewrap" in caught.value.next_step
    assert "--no-sandbox" in caught.value.next_step
    make(pack, kernel, is_sandboxed=False)
    assert read(pack, kernel, "ran") == ""


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("if true; then\n", "syntax error"),
        (f"{CONF}exit 0\n", "could not be evaluated"),
        (f"{CONF}while :; do echo y; done\n", "printed without end"),
        ("PACKAGE_VERSION=1\n", "sets no PACKAGE_NAME"),
        (f'{CONF}PACKAGE_VERSION="#VERSION#"\n', "a template's placeholder"),
        (f"{CONF}PACKAGE_NAME=../x\n", "PACKAGE_NAME is `../x`"),
        (f"{CONF}BUILT_MODULE_NAME[0]=hello.ko\n", "which is no module's name"),
        (f"{CONF}DEST_MODULE_NAME[0]=../../x\n", "which is no module's name"),
        (f"{CONF}DEST_MODULE_NAME[0]=$'x\\nvirtio_pci.ko: x'\n", "which is no module's name"),
        ("PACKAGE_NAME=a\nPACKAGE_VERSION=1\n", "names no module"),
    ],
)
def test_a_file_that_cannot_be_used(pack: Path, kernel: Kernel, text: str, says: str) -> None:
    (pack / "dkms.conf").write_text(text)
    with pytest.raises(UnpreparedError) as caught:
        make(pack, kernel)
    assert says in str(caught.value)


def test_what_fails_is_said_with_the_users_file(pack: Path, kernel: Kernel) -> None:
    (pack / "hello.c").write_text('#include "absent.h"\n')
    add(pack, 'MAKE[0]+="; true"')
    with pytest.raises(UnpreparedError) as caught:
        make(pack, kernel)
    assert caught.value.cause.startswith(f"{pack}/hello.c:1:10: fatal error: absent.h")
    add(pack, "MAKE[0]='touch other.ko'")
    with pytest.raises(UnpreparedError) as caught:
        make(pack, kernel)
    assert caught.value.cause == "MAKE made no hello.ko, only other.ko"
    add(pack, "PATCH[0]=absent")
    with pytest.raises(UnpreparedError, match=r"there is no patches/absent"):
        make(pack, kernel)


def test_a_module_of_the_hosts_kernel(pack: Path, kernel: Kernel) -> None:
    """What builds for the running kernel whatever it is told."""
    (pack / "hello.c").write_text(SOURCE.format(release=os.uname().release))
    with pytest.raises(DamagedError, match=r"was not built for the kernel 6\.1\.9-toy") as caught:
        make(pack, kernel)
    assert f"built for {os.uname().release}, which this host runs" in caught.value.cause
    assert "$kernel_source_dir" in caught.value.next_step


def test_a_module_that_is_a_link_out(pack: Path, kernel: Kernel) -> None:
    add(pack, "MAKE[0]='ln -s /etc/passwd hello.ko'", "STRIP=no")
    with pytest.raises(UnpreparedError, match=r"MAKE made no hello\.ko"):
        make(pack, kernel)


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("truncate -s 8T hello.ko", r"hello\.ko is too large"),
        ("mkfifo hello.ko", "MAKE made no hello.ko"),
        ("mkfifo Module.symvers x.o; ln -s /etc/passwd y.ko", "MAKE made no hello.ko"),
        (
            "p=$(yes d/ | head -1500 | tr -d '\\n'); mkdir -p $p; cd -P $p; mkdir -p $p",
            "MAKE made no hello.ko",
        ),
        ("mkdir closed; touch closed/file; chmod 0 closed", "MAKE made no hello.ko"),
    ],
)
def test_what_a_build_may_leave(pack: Path, kernel: Kernel, script: str, says: str) -> None:
    """The next build begins with a fresh copy all the same."""
    add(pack, 'PRE_BUILD="leave"', "MAKE[0]=true", "STRIP=no")
    write_script(pack / "leave", script, "true")
    try:
        with pytest.raises(UnpreparedError, match=says):
            make(pack, kernel)
        write_script(pack / "leave", "true")
        with pytest.raises(UnpreparedError, match="no module at all"):
            make(pack, kernel)
    finally:
        # pytest could not remove a folder that is too deep.
        subprocess.run(["rm", "-rf", find_module(str(pack)).work], check=True)


def test_an_index_and_a_version_that_bash_did_not_make(pack: Path, kernel: Kernel) -> None:
    add(pack, "BUILD_EXCLUSIVE_KERNEL_MAX=$(printf '9%.0s' {1..5000})")
    add(pack, "builtin() { command builtin printf 'MAKE\\0'; printf '9%.0s' {1..5000}; printf '\\0x\\0'; }")
    with pytest.raises(UnpreparedError, match="could not be evaluated"):
        make(pack, kernel)
    (pack / "dkms.conf").write_text((pack / "dkms.conf").read_text().partition("builtin()")[0])
    make(pack, kernel)


def test_where_a_kbuild_is_found(tmp_path: Path) -> None:
    (tmp_path / "Makefile").write_text("all:\n\t$(MAKE) -C src\n")
    write_module(tmp_path / "deep/in/it")
    assert find_module(str(tmp_path)).below == "deep/in/it"
    write_module(tmp_path / "deep/in/it/nested")
    assert find_module(str(tmp_path)).below == "deep/in/it"
    write_module(tmp_path / "other")
    with pytest.raises(UsageError, match="holds several kernel modules") as caught:
        find_module(str(tmp_path))
    assert caught.value.cause == "in deep/in/it, other"
    write_module(tmp_path / "src")
    assert find_module(str(tmp_path)).below == "src"
    (tmp_path / "Kbuild").write_text("obj-$(CONFIG_X) += x.o\n")
    assert find_module(str(tmp_path)).below == ""


def test_a_kbuild_below_the_top(tmp_path: Path, kernel: Kernel) -> None:
    folder = tmp_path / "project"
    write_module(folder / "src")
    (folder / "shared.h").write_text("int shared;\n")
    with (folder / "src/hello.c").open("a") as file:
        file.write('#include "../shared.h"\n')
    assert installed(make(folder, kernel)) == {f"usr/lib/modules/{RELEASE}/updates/hello.ko"}


def test_the_kernel_is_part_of_what_it_is_made_of(pack: Path, kernel: Kernel, toy: Path) -> None:
    make(pack, kernel)
    assert not make(pack, make_kernel(toy, "CONFIG_X=y")).was_reused


# Debian's packages.


def write_deb(top: Path, name: str, *folders: Path) -> Path:
    tree = top / name
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN/control").write_text(
        f"Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: me <me@example.org>\nDescription: x\n"
    )
    write_script(tree / "DEBIAN/postinst", "touch /postinst-ran")
    (tree / "usr/src").mkdir(parents=True)
    for folder in folders:
        shutil.copytree(folder, tree / "usr/src" / folder.name, symlinks=True)
    made = top / f"{name}_1_all.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "--build", tree, made], check=True, capture_output=True)
    return made


def test_a_package_file(tmp_path: Path, cached: Kernel, capsys: pytest.CaptureFixture[str]) -> None:
    first = write_package(tmp_path / "src/first-1", name="first", module="one")
    second = write_package(tmp_path / "src/second-1", name="second", module="two")
    deb = write_deb(tmp_path, "both-dkms", first, second)
    only = ("--only", "6.1-x86_64", "--source", "debian-source", "--offline", "-q")
    for word in ("built", "reused"):
        status, out, err = command(capsys, "build", str(deb), *only)
        assert (status, out.count(word)) == (0, 2), err
        assert out.split()[:3] == ["cell", "first-1", "second-1"]
    assert {name for name in ("one", "two") if buildlayer.has_module(cached, name)} == {"one", "two"}


@pytest.mark.usefixtures("cached")
def test_packages_that_cannot_be_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    leads_out = write_package(tmp_path / "src/x-1")
    (leads_out / "out.h").symlink_to("../../../../../../etc/passwd")
    truncated = tmp_path / "cut.deb"
    truncated.write_bytes(
        write_deb(tmp_path, "whole", write_package(tmp_path / "src/y-1")).read_bytes()[:-200]
    )
    for asked, says in (
        (str(write_deb(tmp_path, "empty")), "holds no module's source"),
        (str(write_deb(tmp_path, "out", leads_out)), "leads out of it"),
        (str(truncated), "is damaged"),
        (str(tmp_path / "absent.deb"), "cannot be read: No such file"),
        ("apt:vpoll-dkms/buster", "`apt:vpoll-dkms/buster` is no package"),
        ("apt:../x", "`apt:../x` is no package"),
        ("apt:vpoll-dkms", "is not in the cache"),
    ):
        status, _, err = command(capsys, "build", asked, "--only", "6.1-x86_64", "--offline", "-q")
        assert status == 125
        assert says in err


def test_a_file_that_does_not_end(tmp_path: Path) -> None:
    """Its processes end with it."""
    (tmp_path / "dkms.conf").write_text("sleep 1000 & sleep 1000\n")
    sandbox = Sandbox(folder=str(tmp_path), readable=[tmp_path])
    with pytest.raises(UnpreparedError, match="could not be evaluated") as caught:
        anyio.run(lambda: dkmsconf.evaluate("arch=x", sandbox.command, folder=tmp_path, env={}, limit=1.0))
    assert caught.value.cause == "it had not ended after 1.00s"


def test_headers_of_the_hosts_are_linked_in_the_sandbox(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their links are in a folder that is hidden there."""
    headers, modules = tmp_path / "headers", tmp_path / "modules"
    for folder in (headers, modules / "6.1"):
        folder.mkdir(parents=True)
    (modules / "6.1/build").symlink_to(headers)
    monkeypatch.setattr(sandbox, "_modules", lambda: modules)
    assert not sandbox.shows("/lib/modules/6.1/build", headers)
    assert sandbox.shows("/lib/modules/6.1/build", modules / "6.1/build")
    assert sandbox.shows(str(headers), headers)
