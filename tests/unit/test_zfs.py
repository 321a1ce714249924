"""The OpenZFS build, with a toy tree in its place that needs no compiler."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

import anyio
import pytest
from msgspec.structs import replace

from quizmatrix.build.parts import Built
from quizmatrix.build.zfs import build, due
from quizmatrix.build.zfs import sysroot as sysroots
from quizmatrix.build.zfs.build import CONFIGURE, INSTALL, MAKE, STEPS
from quizmatrix.build.zfs.options import ZfsOptions
from quizmatrix.build.zfs.part import ZfsPart, modules_part, userland_part
from quizmatrix.build.zfs.state import configuration_of, state_of
from quizmatrix.build.zfs.sysroot import Sysroot, sysroot_of
from quizmatrix.build.zfs.tree import ZfsTree, find_tree, make_ready
from quizmatrix.core import paths
from quizmatrix.core.errors import HostError, UnpreparedError, UsageError
from quizmatrix.core.jobserver import JobServer
from quizmatrix.core.version import KernelVersion
from quizmatrix.kernel import artifact, buildlayer
from quizmatrix.kernel.artifact import Kernel
from quizmatrix.kernel.build import build as build_kernel
from quizmatrix.kernel.buildtree import TREES, TreeRecord, write_record
from quizmatrix.kernel.order import Order
from quizmatrix.kernel.source import obtain
from quizmatrix.kernel.tree import KernelTree
from quizmatrix.model.arch import load_arch
from quizmatrix.model.cells import cells_on_the_spot
from quizmatrix.model.matrix import Limits

TOY = Path(__file__).parents[1] / "toy-zfs"
X86_64 = load_arch("x86_64")


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ZfsTree:
    """A toy OpenZFS tree that knows kernels up to 6.2, and a cache for this test."""
    monkeypatch.setenv("QUIZMATRIX_CACHE_DIR", str(tmp_path / "cache"))
    return find_tree(str(shutil.copytree(TOY, tmp_path / "zfs")))


# The tree.


def test_a_tree_is_found_from_anywhere_in_it(tree: ZfsTree, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tree.version == "2.1.99"
    assert tree.newest_kernel == KernelVersion("6.2")
    assert tree.oldest_kernel == KernelVersion("3.10")
    monkeypatch.chdir(tree.path / "module")
    assert find_tree(None) == tree
    with pytest.raises(UsageError, match="module is no OpenZFS work tree"):
        find_tree(".")


@pytest.mark.parametrize("meta", [None, "Name: nfs\n", "Meta: 1\n", "# Name: zfs\n"])
def test_what_is_no_tree(meta: str | None, tmp_path: Path) -> None:
    if meta is not None:
        (tmp_path / "META").write_text(meta)
    with pytest.raises(UsageError, match="is no OpenZFS work tree") as caught:
        find_tree(str(tmp_path))
    assert "--source DIR" in caught.value.next_step


def test_a_meta_of_few_words(tmp_path: Path) -> None:
    (tmp_path / "META").write_bytes(b"Name:zfs  \r\nAuthor: \xff\n")
    tree = find_tree(str(tmp_path))
    assert (tree.version, tree.newest_kernel) == ("unknown", None)


def test_trees_of_one_name_are_built_apart(tree: ZfsTree, tmp_path: Path) -> None:
    other = find_tree(str(shutil.copytree(TOY, tmp_path / "other/zfs")))
    assert other.work != tree.work
    assert other.work.name.startswith("zfs-")


def ready(tree: ZfsTree) -> list[str]:
    said: list[str] = []
    anyio.run(make_ready, tree, said.append)
    return said


def make_older(path: Path, than: Path) -> None:
    os.utime(path, (than.stat().st_mtime - 10,) * 2)


@pytest.fixture
def autotools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Programs with the names that autogen.sh needs, first in PATH, that do nothing."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("autoreconf", "automake", "libtoolize"):
        (folder / name).write_text("#!/bin/sh\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def test_a_tree_that_was_configured_in_place(tree: ZfsTree) -> None:
    (tree.path / "config.status").touch()
    with pytest.raises(UnpreparedError, match="was configured in place") as caught:
        ready(tree)
    assert "make distclean" in caught.value.next_step


@pytest.mark.usefixtures("autotools")
def test_autogen_runs_where_it_is_due(tree: ZfsTree) -> None:
    configure, source = tree.path / "configure", tree.path / "configure.ac"
    macros, rules = tree.path / "config/kernel.m4", tree.path / "lib/libzfs/Makefile.am"
    for path in (macros, rules):
        path.parent.mkdir(parents=True)
        path.touch()
    sources = (source, macros, rules, tree.path / "META")
    for older in sources:
        make_older(older, configure)
    assert ready(tree) == []
    for newer in sources:
        make_older(configure, newer)
        assert len(ready(tree)) == 1
        # The toy's autogen.sh updates this file.
        assert ready(tree) == []
    configure.unlink()
    assert len(ready(tree)) == 1


def test_autogen_that_fails(tree: ZfsTree, autotools: Path) -> None:
    (autotools / "autoreconf").write_text("#!/bin/sh\necho configure.ac:1: no such macro >&2; exit 1\n")
    (tree.path / "configure").unlink()
    with pytest.raises(UnpreparedError, match=r"autogen\.sh failed") as caught:
        ready(tree)
    assert caught.value.cause == "configure.ac:1: no such macro"


def test_autogen_without_its_tools(tree: ZfsTree, autotools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (autotools / "automake").unlink()
    monkeypatch.setenv("PATH", str(autotools))
    (tree.path / "configure").unlink()
    with pytest.raises(HostError, match="`automake` is not installed") as caught:
        ready(tree)
    assert "apt-get install automake" in caught.value.next_step


# The build.


@pytest.fixture
def kernel(toy: Path) -> Kernel:
    source = KernelTree(path=toy, version=KernelVersion("6.1.9"), key="toy", origin="toy 6.1.9")
    kernel = artifact.load(anyio.run(build_kernel, source, Order(arch=X86_64, tell=lambda _said: None)))
    assert kernel is not None
    return kernel


def sysroot() -> Sysroot:
    return Sysroot(folder=Path("/sysroot"), suite="toy", compiler="false", packages=[], libraries=[])


def userland(tree: ZfsTree, options: ZfsOptions | None = None) -> ZfsPart:
    return userland_part(tree, X86_64, sysroot(), options or ZfsOptions())


def modules(tree: ZfsTree, kernel: Kernel, options: ZfsOptions | None = None) -> ZfsPart:
    return modules_part(tree, X86_64, kernel, sysroot(), options or ZfsOptions())


def take(
    part: ZfsPart, *steps: str, cpus: int = 2, tell: Callable[[str], None] = lambda _said: None
) -> Built | None:
    pool = JobServer(cpus)
    try:
        return anyio.run(build.build, part, pool, tell, steps or STEPS)
    finally:
        pool.close()


def files(layer: Path) -> set[str]:
    return {str(path.relative_to(layer)) for path in layer.rglob("*") if path.is_file()}


def lines(part: ZfsPart, name: str) -> list[str]:
    path = part.folder.with_name(name)
    return path.read_text().split() if path.exists() else []


def test_the_userland_is_installed_as_a_layer(tree: ZfsTree) -> None:
    before = {path: path.stat().st_mtime_ns for path in tree.path.rglob("*")}
    part = userland(tree)
    built = take(part)
    assert built is not None
    assert not built.was_reused
    # There must be no /lib: a folder would hide the guest's symlink.
    assert files(built.layer) == {"usr/sbin/zpool", "usr/lib/udev/zvol_id"}
    assert not (built.layer / "lib").exists()
    assert built.runtime is not None
    assert built.runtime.is_dir()
    arguments = (part.folder / "arguments").read_text().splitlines()
    assert "--with-config=user" in arguments
    assert "--host=x86_64-linux-gnu" in arguments
    assert {path: path.stat().st_mtime_ns for path in tree.path.rglob("*")} == before


def test_the_modules_are_installed_as_a_layer(tree: ZfsTree, kernel: Kernel) -> None:
    part = modules(tree, kernel)
    built = take(part)
    assert built is not None
    assert files(built.layer) == {"usr/lib/modules/toy/extra/zfs.ko"}
    assert built.runtime is None
    arguments = (part.folder / "arguments").read_text().splitlines()
    assert kernel.build_tree is not None
    assert f"--with-linux-obj={kernel.build_tree.folder}" in arguments
    assert "KERNEL_ARCH=x86" in arguments or "KERNEL_ARCH=x86_64" in arguments


@pytest.mark.parametrize("kind", ["userland", "modules"])
def test_what_is_built_is_reused(kind: str, tree: ZfsTree, kernel: Kernel) -> None:
    part = userland(tree) if kind == "userland" else modules(tree, kernel)
    assert build.installed(part) is None
    first, second = take(part), take(part)
    assert first is not None
    assert second is not None
    assert second.was_reused
    assert second.layer == first.layer
    assert build.installed(part) == second
    assert (lines(part, "configured"), len(lines(part, "compiled"))) == (["configured"], 1)


def test_libraries_are_found_where_each_has_its_own_makefile(tree: ZfsTree) -> None:
    """As up to OpenZFS 2.1: programs are linked to libraries that need others of the same build."""
    part = userland(tree)
    assert part.make == [[f"LDFLAGS=-Wl,-rpath-link,{part.folder}/.libs"]]
    for name in ("libuutil", "libzfs"):
        (tree.path / "lib" / name).mkdir(parents=True)
        (tree.path / "lib" / name / "Makefile.am").touch()
    (tree.path / "lib/Makefile.am").write_text("# one makefile for all\n")
    assert userland(tree) == part
    (tree.path / "lib/Makefile.am").write_text("SUBDIRS = libuutil libzfs\n")
    folders = ":".join(
        f"{part.folder}/{name}" for name in (".libs", "lib/libuutil/.libs", "lib/libzfs/.libs")
    )
    (words,) = userland(tree).make
    assert words == [f"LDFLAGS=-Wl,-rpath-link,{folders}"]


def test_what_was_never_built_is_said_to_take_long(tree: ZfsTree, toy: Path) -> None:
    def work() -> list[tuple[str, float]]:
        return [(one.what, one.seconds) for one in due.work_of(tree, ZfsOptions(), [cell])]

    (cell,) = cells_on_the_spot([f"path:{toy}-x86_64"], Limits())
    (nothing_built,) = work()
    order = Order(arch=X86_64, tell=lambda _said: None)
    kernel = anyio.run(obtain, cell.kernel_spec, order)
    libraries = sysroot_of(X86_64, None)
    take(userland_part(tree, X86_64, libraries, ZfsOptions()))
    (modules_left,) = work()
    take(modules_part(tree, X86_64, kernel, libraries, ZfsOptions()))
    assert nothing_built[0] == modules_left[0] == "OpenZFS for a kernel"
    assert nothing_built[1] > modules_left[1]
    assert work() == []
    # An edit is compiled in seconds.
    (tree.path / "module/zfs.c").touch()
    assert work() == []
    assert due.work_of(tree, ZfsOptions(debug=True), [cell]) != []


def test_an_edit_is_compiled_and_not_configured_anew(tree: ZfsTree, kernel: Kernel) -> None:
    part = modules(tree, kernel)
    first = take(part)
    assert first is not None
    (tree.path / "module/zfs.c").write_text("int edited;\n")
    assert build.installed(part) is None
    second = take(part)
    assert second is not None
    assert not second.was_reused
    (installed,) = second.layer.rglob("zfs.ko")
    assert installed.read_text() == "int edited;\n"
    (earlier,) = first.layer.rglob("zfs.ko")
    assert earlier.read_text() == "int zfs;\n"
    assert (lines(part, "configured"), lines(part, "compiled")) == (["configured"], ["zfs", "zfs"])
    os.utime(first.layer, (0, 0))
    (tree.path / "module/zfs.c").write_text("int again;\n")
    take(part)
    assert not first.layer.exists()
    assert second.layer.exists()


def test_what_a_kernels_guests_still_get_stays(tree: ZfsTree, kernel: Kernel) -> None:
    part = modules(tree, kernel)
    first = take(part)
    assert first is not None
    reference = buildlayer.LayerReference(name="zfs", origin=str(tree.path), layers=[str(first.layer)])
    buildlayer.write_reference("another-kernel", reference)
    os.utime(first.layer, (0, 0))
    for number in range(2):
        (tree.path / "module/zfs.c").write_text(f"int edit_{number};\n")
        take(part)
    assert buildlayer.references("another-kernel") == [reference]


def test_an_edit_of_programs_concerns_no_module(tree: ZfsTree, kernel: Kernel) -> None:
    parts = [userland(tree), modules(tree, kernel)]
    for part in parts:
        take(part)
    (tree.path / "cmd/zpool.c").write_text("int edited;\n")
    assert [build.installed(part) is None for part in parts] == [True, False]


@pytest.mark.parametrize("change", ["configure", "options", "other options"])
def test_what_is_to_be_configured_anew(change: str, tree: ZfsTree, kernel: Kernel) -> None:
    take(modules(tree, kernel))
    options = ZfsOptions()
    if change == "configure":
        with (tree.path / "configure").open("a") as file:
            file.write("# edited\n")
    elif change == "options":
        options = ZfsOptions(debug=True)
    else:
        options = ZfsOptions(configure=("--enable-more",))
    part = modules(tree, kernel, options)
    built = take(part)
    assert built is not None
    assert not built.was_reused
    assert len(lines(part, "configured")) == 2
    given = (part.folder / "arguments").read_text().splitlines()
    assert set(options.arguments) <= set(given)


@pytest.mark.parametrize("cpus", [(1, 2), (2, 1), (4, 4)])
def test_answers_are_known_in_another_tree(
    cpus: tuple[int, int], tree: ZfsTree, kernel: Kernel, tmp_path: Path
) -> None:
    first = modules(tree, kernel)
    take(first, cpus=cpus[0])
    assert "checking for an answer... found" in first.log.read_text()
    other = modules(find_tree(str(shutil.copytree(TOY, tmp_path / "other"))), kernel)
    take(other, cpus=cpus[1])
    assert "checking for an answer... (cached)" in other.log.read_text()
    # The path of a program differs with another PATH, so it is not shared.
    assert "checking for awk... (cached)" not in other.log.read_text()
    assert len(lines(other, "configured")) == 1
    # Answers that were found with shared answers are shared, too.
    (kept,) = (tree.work.parent / "configured").iterdir()
    assert "TEST_JOBS" not in kept.read_text()


@pytest.mark.parametrize(
    "answers",
    [
        b"",
        b"\xff\x00\n",
        b"ac_cv_answer='cut off",
        b"ac_cv_answer=found\nac_cv_env_TEST_JOBS_set=set\nac_cv_env_TEST_JOBS_value=99\n",
        b"ac_cv_env_CC_set=set\nac_cv_env_CC_value=another\n",
        b"ac_cv_prog_AWK=/nowhere/awk\n",
    ],
)
def test_answers_that_do_not_fit_are_found_anew(answers: bytes, tree: ZfsTree, tmp_path: Path) -> None:
    take(userland(tree))
    (kept,) = (tree.work.parent / "configured").iterdir()
    good = kept.read_bytes()
    kept.write_bytes(answers)
    other = userland(find_tree(str(shutil.copytree(TOY, tmp_path / "other"))))
    assert take(other) is not None
    assert kept.read_bytes() == good


def test_another_compiler_knows_none_of_the_answers(
    tree: ZfsTree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take(userland(tree))
    compiler = tmp_path / "bin/false"
    compiler.parent.mkdir()
    compiler.write_text("#!/bin/sh\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("PATH", f"{compiler.parent}:{os.environ['PATH']}")
    part = userland(tree)
    assert build.installed(part) is None
    take(part)
    assert "checking for an answer... found" in part.log.read_text()


def test_steps_one_by_one(tree: ZfsTree, kernel: Kernel) -> None:
    part = modules(tree, kernel)
    with pytest.raises(UnpreparedError, match="is not configured yet") as caught:
        take(part, MAKE)
    assert "quizmatrix zfs configure" in caught.value.next_step
    assert take(part, CONFIGURE) is None
    assert lines(part, "compiled") == []
    assert take(part, MAKE) is None
    assert build.installed(part) is None
    built = take(part, INSTALL)
    assert built is not None
    assert not built.was_reused
    assert build.installed(part) is not None
    assert lines(part, "compiled") == ["zfs"]
    # What is installed is what the tree is, also where it was not compiled before.
    (tree.path / "module/zfs.c").write_text("int changed;\n")
    assert take(part, INSTALL) is not None
    assert lines(part, "compiled") == ["zfs", "zfs"]
    other = modules(tree, kernel, ZfsOptions(debug=True))
    with pytest.raises(UnpreparedError, match="is not configured as is asked for now"):
        take(other, INSTALL)


def test_the_compilers_first_error(tree: ZfsTree, kernel: Kernel) -> None:
    part = modules(tree, kernel)
    good = take(part)
    assert good is not None
    (tree.path / "module/zfs.c").write_text("#error this cannot be compiled\n")
    with pytest.raises(UnpreparedError, match="could not be built") as caught:
        take(part)
    assert caught.value.cause == f"{tree.path}/module/zfs.c:1:2: error: #error"
    assert caught.value.next_step == f"The whole log: {part.log}"
    assert good.layer.is_dir()
    assert len(list(good.layer.parent.iterdir())) == 1
    (tree.path / "module/zfs.c").write_text("int mended;\n")
    assert take(part) is not None


def test_a_configure_that_fails_is_run_again(tree: ZfsTree, kernel: Kernel) -> None:
    broken = modules(tree, kernel, ZfsOptions(configure=("--enable-broken",)))
    for _ in range(2):
        with pytest.raises(UnpreparedError) as caught:
            take(broken)
        assert caught.value.cause == "configure: error: this cannot be configured"
    assert len(lines(broken, "configured")) == 2


def test_offline_no_libraries_are_fetched(tree: ZfsTree) -> None:
    pool = JobServer(1)
    try:
        with pytest.raises(UnpreparedError, match="the cache has no libraries of x86_64: --offline"):
            anyio.run(partial(sysroots.obtain, X86_64, None, pool, print, is_offline=True))
    finally:
        pool.close()


def test_modules_that_count_lines_are_other_modules(tree: ZfsTree, kernel: Kernel) -> None:
    counting = ZfsOptions(coverage=True)
    assert modules(tree, kernel, counting).making == {}
    assert state_of(modules(tree, kernel, counting)) == state_of(modules(tree, kernel))
    config = kernel.folder / artifact.CONFIG
    config.write_text(f"{config.read_text()}CONFIG_GCOV_KERNEL=y\nCONFIG_CC_IS_GCC=y\n")
    assert modules(tree, kernel, counting).making == {"GCOV_PROFILE": "y"}
    assert state_of(modules(tree, kernel, counting)) != state_of(modules(tree, kernel))
    # They are configured alike.
    assert configuration_of(modules(tree, kernel, counting)) == configuration_of(modules(tree, kernel))
    assert state_of(userland(tree, counting)) == state_of(userland(tree))


def test_a_ready_made_kernel_is_built_for_with_its_own_compiler(
    tree: ZfsTree, kernel: Kernel, toy: Path, tmp_path: Path
) -> None:
    """The tools of its tree are named by path, so that ./configure's compiler does not get their linker."""
    own, headers, tools = kernel.build_tree, tmp_path / "headers", tmp_path / "tools"
    assert own is not None
    shutil.copytree(own.folder, headers, symlinks=True)
    tools.mkdir()
    for name in ("toy-gcc-12", "toy-ld"):
        (tools / name).symlink_to("/bin/false")
    with paths.new_dir(TREES.path(kernel.record.key)) as folder:
        make = ["ARCH=x86_64", "CROSS_COMPILE=toy-", "CC=toy-gcc-12"]
        record = TreeRecord(folder=str(headers), source=str(toy), make=make, tools=[str(tools)])
        write_record(folder, record)
    ready_made = replace(kernel, record=replace(kernel.record, build=None))
    part = modules(tree, ready_made)
    built = take(part)
    assert built is not None
    assert files(built.layer) == {"usr/lib/modules/toy/extra/zfs.ko"}
    arguments = (part.folder / "arguments").read_text().splitlines()
    assert {f"--with-linux={toy}", f"--with-linux-obj={headers}"} <= {*arguments}
    assert {f"KERNEL_CC={tools}/toy-gcc-12", f"KERNEL_CROSS_COMPILE={tools}/toy-"} <= {*arguments}
    assert "PATH" not in part.environment
    # Debug information would be stripped at once, unless it is asked for.
    assert part.environment["KCFLAGS"] == "-g0"
    assert "KCFLAGS" not in modules(tree, ready_made, ZfsOptions(debug=True)).environment
    assert "KCFLAGS" not in modules(tree, kernel).environment


@pytest.mark.parametrize("version", ["6.3.1", "6.3-rc2", "debian-source:6.3"])
def test_a_kernel_that_the_tree_does_not_know(version: str, tree: ZfsTree) -> None:
    with pytest.raises(UnpreparedError, match=r"OpenZFS 2\.1\.99 does not know kernel 6\.3") as caught:
        build.check_kernel(tree, version, ZfsOptions())
    assert caught.value.cause == "META's Linux-Maximum is 6.2"
    build.check_kernel(tree, version, ZfsOptions(experimental=True))


def test_a_kernel_that_the_tree_knows_no_longer(tree: ZfsTree) -> None:
    with pytest.raises(UnpreparedError, match=r"is not for kernel 2\.6\.39 any more") as caught:
        build.check_kernel(tree, "2.6.39", ZfsOptions(experimental=True))
    assert caught.value.cause == "META's Linux-Minimum is 3.10"
    build.check_kernel(tree, "3.10.1", ZfsOptions())


@pytest.mark.parametrize("version", ["6.2.99", "5.10", "newest", "path:../linux"])
def test_a_kernel_that_it_may_know(version: str, tree: ZfsTree) -> None:
    build.check_kernel(tree, version, ZfsOptions())


def test_a_kernel_without_a_build_tree(tree: ZfsTree, kernel: Kernel) -> None:
    assert kernel.build_tree is not None
    shutil.rmtree(kernel.build_tree.folder)
    with pytest.raises(UnpreparedError, match="has no build tree"):
        modules(tree, kernel)


def test_two_builds_of_one_part_at_once(tree: ZfsTree, kernel: Kernel) -> None:
    part = modules(tree, kernel)
    results: list[Built | None] = []

    async def both() -> None:
        pool = JobServer(2)

        async def one() -> None:
            results.append(await build.build(part, pool, lambda _said: None))

        async with anyio.create_task_group() as group:
            group.start_soon(one)
            group.start_soon(one)
        pool.close()

    anyio.run(both)
    assert sorted(built.was_reused for built in results if built) == [False, True]
    assert (lines(part, "configured"), lines(part, "compiled")) == (["configured"], ["zfs"])


# Several trees.


def refer(tree: ZfsTree, key: str, *layers: Path, head: str = "") -> buildlayer.LayerReference:
    paths_of = [*map(str, layers)]
    reference = buildlayer.LayerReference(name="zfs", origin=str(tree.path), head=head, layers=paths_of)
    buildlayer.write_reference(key, reference)
    return reference


def another(tree: ZfsTree, place: Path) -> ZfsTree:
    """A copy of a tree, as `git worktree` makes it: with other mtimes."""
    shutil.copytree(tree.path, place, copy_function=shutil.copyfile)
    (place / ".git").write_text("gitdir: elsewhere\n")
    for name in ("configure", "autogen.sh"):
        (place / name).chmod((tree.path / name).stat().st_mode)
    return find_tree(str(place))


@pytest.mark.parametrize("kind", ["userland", "modules"])
def test_what_is_equal_is_taken_from_another_tree(
    kind: str, tree: ZfsTree, kernel: Kernel, tmp_path: Path
) -> None:
    def part_of(one: ZfsTree) -> ZfsPart:
        return userland(one) if kind == "userland" else modules(one, kernel)

    first = take(part_of(tree))
    assert first is not None
    refer(tree, kernel.record.key, first.layer)
    other = another(tree, tmp_path / "other")
    assert not build.is_new(part_of(other))
    second = take(part_of(other))
    assert second is not None
    assert second.was_reused
    assert second.layer != first.layer
    assert files(second.layer) == files(first.layer)
    assert (second.runtime is None) == (first.runtime is None)
    assert (lines(part_of(other), "configured"), lines(part_of(other), "compiled")) == ([], [])
    assert build.installed(part_of(other)) == second
    # Its own edit is compiled, and the other tree's build stays as it is.
    edited = "cmd/zpool.c" if kind == "userland" else "module/zfs.c"
    (other.path / edited).write_text("int edited;\n")
    third = take(part_of(other))
    assert third is not None
    assert not third.was_reused
    assert build.installed(part_of(tree)) is not None


def test_what_differs_is_not_taken(tree: ZfsTree, kernel: Kernel, tmp_path: Path) -> None:
    programs, built = take(userland(tree)), take(modules(tree, kernel))
    assert programs is not None
    assert built is not None
    refer(tree, kernel.record.key, programs.layer, built.layer)
    other = another(tree, tmp_path / "other")
    # Of the same size.
    (other.path / "cmd/zpool.c").write_text("int zpooL;\n")
    assert build.is_new(userland(other))
    # Programs do not concern modules.
    assert not build.is_new(modules(other, kernel))
    assert build.is_new(modules(other, kernel, ZfsOptions(debug=True)))
    # What the other tree was built of is there no more.
    (tree.path / "module/zfs.c").write_text("int edited;\n")
    assert build.is_new(modules(other, kernel))
    shutil.rmtree(tree.path)
    assert build.is_new(modules(other, kernel))


def test_the_builds_of_trees_are_side_by_side(tree: ZfsTree, tmp_path: Path) -> None:
    layers = [tmp_path / name for name in ("first", "second", "hello")]
    for layer in layers:
        layer.mkdir()
    other, unbuilt = another(tree, tmp_path / "other"), another(tree, tmp_path / "unbuilt")
    one = refer(tree, "key", layers[0], head="main 1a2b")
    two = refer(other, "key", layers[1])
    folder = tmp_path / "source/hello"
    hello = buildlayer.LayerReference(
        name=paths.cache_name(folder), origin=str(folder), layers=[str(layers[2])]
    )
    buildlayer.write_reference("key", hello)

    assert buildlayer.builds_of_trees("key") == [two, one]
    assert buildlayer.references_in("key", None) == [hello, two]
    assert buildlayer.references_in("key", tree.path) == [hello, one]
    assert buildlayer.references_in("key", other.path) == [hello, two]
    # No other tree's build is taken for that of the tree that the user is in.
    assert buildlayer.references_in("key", unbuilt.path) == [hello]
    assert buildlayer.layers_in_use() == {*map(str, layers)}
    # Built again, it is the last one.
    refer(tree, "key", layers[0])
    assert buildlayer.references_in("key", None)[1].origin == str(tree.path)
    assert buildlayer.module_references("key") == [hello]
    buildlayer.remove("key")
    assert buildlayer.builds_of_trees("key") == []


def test_what_an_earlier_version_built_is_of_its_tree(tree: ZfsTree, tmp_path: Path) -> None:
    (tmp_path / "layer").mkdir()
    reference = refer(tree, "key", tmp_path / "layer")
    shutil.rmtree(buildlayer.store_of("key").root / "of-trees")
    assert buildlayer.references_in("key", tree.path) == [reference]
    assert buildlayer.builds_of_trees("key") == [reference]


# A tree that changes during the build.


def git(tree: ZfsTree, *words: str) -> None:
    own = ["-c", "user.name=T", "-c", "user.email=t@example.org"]
    subprocess.run(["git", "-C", str(tree.path), *own, *words], check=True, capture_output=True)


@pytest.fixture
def branches(tree: ZfsTree) -> ZfsTree:
    """The tree with two branches, of which `topic` has another module; `main` is checked out."""
    git(tree, "init", "--quiet", "--initial-branch=main")
    git(tree, "add", "--all")
    git(tree, "commit", "--quiet", "-m", "one")
    git(tree, "checkout", "--quiet", "-b", "topic")
    (tree.path / "module/zfs.c").write_text("int topic;\n")
    git(tree, "commit", "--quiet", "-a", "-m", "two")
    git(tree, "checkout", "--quiet", "main")
    return tree


def test_what_is_checked_out(branches: ZfsTree, tmp_path: Path) -> None:
    assert re.fullmatch(r"main [0-9a-f]{12}", branches.head())
    git(branches, "checkout", "--quiet", "--detach")
    assert re.fullmatch(r"[0-9a-f]{12}", branches.head())
    # A folder within another repository is not of git.
    assert find_tree(str(shutil.copytree(TOY, branches.path / "unpacked"))).head() == ""


@pytest.mark.parametrize("step", ["compiling", "installing"])
def test_a_branch_that_changes_during_the_build(step: str, branches: ZfsTree, kernel: Kernel) -> None:
    part = modules(branches, kernel)

    def change(said: str) -> None:
        if said == step:
            git(branches, "checkout", "--quiet", "topic")

    with pytest.raises(UnpreparedError, match="changed during the build") as caught:
        take(part, tell=change)
    assert re.fullmatch(r"main \w+ was checked out, and now topic \w+", caught.value.cause)
    assert build.installed(part) is None
    assert list(part.tree.store.root.glob("layers/*")) == []
    built = take(part)
    assert built is not None
    (module,) = built.layer.rglob("zfs.ko")
    assert module.read_text() == "int topic;\n"
    # What was compiled meanwhile may be of either branch, although it is newer than its source.
    assert lines(part, "compiled")[-1:] == ["zfs"]
    assert len(lines(part, "compiled")) >= 2
    git(branches, "checkout", "--quiet", "main")
    assert build.installed(part) is None


def test_a_file_that_is_written_during_the_build(tree: ZfsTree, kernel: Kernel) -> None:
    part = modules(tree, kernel)

    def edit(said: str) -> None:
        if said == "installing":
            (tree.path / ".zfs.c.swp").write_text("of an editor")
            (tree.path / "module/zfs.c").write_text("#error half of an edit\n")

    with pytest.raises(UnpreparedError, match="changed during the build") as caught:
        take(part, tell=edit)
    assert caught.value.cause == "module/zfs.c changed"


def test_what_editors_and_programs_write_meanwhile(tree: ZfsTree, kernel: Kernel) -> None:
    part = modules(tree, kernel)

    def edit(said: str) -> None:
        if said == "installing":
            (tree.path / "module/.zfs.c.swp").write_text("of an editor")
            (tree.path / "cmd/zpool.c").write_text("int not_of_modules;\n")

    assert take(part, tell=edit) is not None


def test_what_git_does_not_track_is_written_meanwhile(branches: ZfsTree, kernel: Kernel) -> None:
    part = modules(branches, kernel)

    def write(said: str) -> None:
        if said == "installing":
            (branches.path / "log").write_text("of another run")

    assert take(part, tell=write) is not None
