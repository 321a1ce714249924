"""Kernel modules of the user's, built against a toy kernel's build tree, in a moment."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from quizmatrix.build.module import mirror
from quizmatrix.build.module.build import ModuleOptions, build, check_options
from quizmatrix.build.module.module import Module, find_module
from quizmatrix.build.parts import Built
from quizmatrix.cli import run_command
from quizmatrix.core.errors import DamagedError, UnpreparedError, UsageError
from quizmatrix.core.jobserver import JobServer
from quizmatrix.core.version import KernelVersion
from quizmatrix.kernel import artifact, buildlayer, source
from quizmatrix.kernel.artifact import Kernel
from quizmatrix.kernel.build import build as build_kernel
from quizmatrix.kernel.buildlayer import module_references
from quizmatrix.kernel.order import KernelOptions, Order
from quizmatrix.kernel.tree import KernelTree
from quizmatrix.model.arch import load_arch

RELEASE = "6.1.9-toy"
SOURCE = 'const char magic[] __attribute__((section(".modinfo"))) = "vermagic={release} SMP";\n'
X86_64 = load_arch("x86_64")


def make_kernel(toy: Path, *config: str) -> Kernel:
    tree = KernelTree(path=toy, version=KernelVersion("6.1.9"), key="toy", origin="toy 6.1.9")
    order = Order(arch=X86_64, options=KernelOptions(config=config), tell=lambda _said: None)
    kernel = artifact.load(anyio.run(build_kernel, tree, order))
    assert kernel is not None
    return kernel


@pytest.fixture
def kernel(toy: Path) -> Kernel:
    return make_kernel(toy)


@pytest.fixture
def hello(tmp_path: Path) -> Path:
    """A module's source, in a folder whose name make(1) could not handle."""
    return write_module(tmp_path / "my hello" / "a module")


def write_module(folder: Path, name: str = "hello") -> Path:
    folder.mkdir(parents=True)
    (folder / "Kbuild").write_text(f"obj-m := {name}.o\n")
    (folder / f"{name}.c").write_text(SOURCE.format(release=RELEASE))
    return folder


def make(
    folder: Path, kernel: Kernel, *words: str, tell: Callable[[str], None] = lambda _said: None
) -> Built:
    pool = JobServer(2)
    try:
        return anyio.run(build, find_module(str(folder)), kernel, ModuleOptions(make=words), pool, tell)
    finally:
        pool.close()


def copy_of(folder: Path, kernel: Kernel) -> Path:
    return Module(path=folder.resolve()).work / kernel.record.key


def compiled(folder: Path, kernel: Kernel) -> list[str]:
    return (copy_of(folder, kernel) / "compiled").read_text().splitlines()


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# The copy of the source.


def follow(folder: Path, copy: Path) -> dict[str, bytes]:
    mirror.follow(folder, mirror.scan(folder), copy)
    return contents(copy)


def test_a_copy_holds_the_source_and_no_products(hello: Path, tmp_path: Path) -> None:
    products = ["hello.o", "hello.ko", "hello.mod", "hello.mod.c", ".hello.o.cmd", ".hello.o.d"]
    products += [".module-common.o", "..module-common.o.cmd"]
    products += ["Module.symvers", "modules.order", ".git/config", ".tmp_versions/a"]
    kept = ["blob.o_shipped", "closed.o", "sub/hello.o", "sub/part.c", "hello.mod.h", ".clang-format"]
    for name in [*products, *kept]:
        (hello / name).parent.mkdir(exist_ok=True)
        (hello / name).write_text(name)
    assert follow(hello, tmp_path / "copy").keys() == {"Kbuild", "hello.c", *kept}


def test_what_did_not_change_is_left_as_it_is(hello: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    follow(hello, copy)
    (copy / "hello.o").touch()
    before = {path.name: path.stat().st_mtime_ns for path in copy.iterdir()}
    (hello / "hello.c").write_text("int other;\n")
    follow(hello, copy)
    after = {path.name: path.stat().st_mtime_ns for path in copy.iterdir()}
    assert {name for name in before if before[name] != after[name]} == {"hello.c"}
    assert after["hello.c"] > after["hello.o"]
    assert (copy / "hello.c").read_text() == "int other;\n"


def test_what_is_replaced_by_something_older_is_compiled_again(hello: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    follow(hello, copy)
    (copy / "hello.o").touch()
    (hello / "hello.c").write_text("int old;\n")
    os.utime(hello / "hello.c", (1, 1))
    follow(hello, copy)
    assert (copy / "hello.c").stat().st_mtime_ns > (copy / "hello.o").stat().st_mtime_ns


def test_what_is_gone_is_gone_from_the_copy(hello: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    (hello / "sub").mkdir()
    for name in ("gone.c", "gone.h", "sub/deep.c"):
        (hello / name).touch()
    follow(hello, copy)
    for name in ("gone.o", "other.o"):
        (copy / name).touch()
    for name in ("gone.c", "gone.h", "sub/deep.c"):
        (hello / name).unlink()
    assert follow(hello, copy).keys() == {"Kbuild", "hello.c", "other.o"}
    assert not (copy / "sub").exists()


def test_a_folder_becomes_a_file_and_a_file_a_folder(hello: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    (hello / "a").mkdir()
    (hello / "a/x.c").touch()
    (hello / "b").touch()
    follow(hello, copy)
    (copy / "a/x.o").touch()
    (copy / "a/left.o").touch()
    shutil.rmtree(hello / "a")
    (hello / "a").write_text("file")
    (hello / "b").unlink()
    (hello / "b").mkdir()
    (hello / "b/y.c").touch()
    assert follow(hello, copy).keys() == {"Kbuild", "hello.c", "a", "b/y.c"}


def test_an_object_of_the_users_is_not_taken_for_kbuilds(hello: Path, tmp_path: Path) -> None:
    """It may be of another kernel, and is newer than its source; without kbuild's note it is made again."""
    copy = tmp_path / "copy"
    follow(hello, copy)
    for name in ("hello.o", ".hello.o.cmd"):
        (copy / name).touch()
    (hello / "hello.o").write_text("of gcc")
    assert follow(hello, copy)["hello.o"] == b"of gcc"
    assert not (copy / ".hello.o.cmd").exists()


def test_links_are_followed(hello: Path, tmp_path: Path) -> None:
    common = tmp_path / "common"
    common.mkdir()
    (common / "shared.h").write_text("1")
    (hello / "shared.h").symlink_to("../../common/shared.h")
    (hello / "common").symlink_to(common)
    (hello / "again").symlink_to(".")
    (hello / ".#hello.c").symlink_to("nobody@nowhere:1")
    copy = tmp_path / "copy"
    first = follow(hello, copy)
    assert first.keys() == {"Kbuild", "hello.c", "shared.h", "common/shared.h"}
    assert not [path for path in copy.rglob("*") if path.is_symlink()]
    (common / "shared.h").write_text("22")
    assert follow(hello, copy)["shared.h"] == b"22"


def test_files_that_may_not_be_written_and_that_are_run(hello: Path, tmp_path: Path) -> None:
    (hello / "gen.sh").write_text("1")
    (hello / "gen.sh").chmod(0o555)
    follow(hello, tmp_path / "copy")
    (hello / "gen.sh").chmod(0o755)
    (hello / "gen.sh").write_text("2")
    (hello / "gen.sh").chmod(0o555)
    assert follow(hello, tmp_path / "copy")["gen.sh"] == b"2"
    assert os.access(tmp_path / "copy/gen.sh", os.X_OK)


def test_a_copy_that_was_interrupted_is_ended(
    hello: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file is changed, half copied, and changed back, with the same mtime to the nanosecond."""
    copy = tmp_path / "copy"
    follow(hello, copy)
    first = (hello / "hello.c").read_text()
    before = (hello / "hello.c").stat()
    (hello / "hello.c").write_text("int changed;\n")
    (hello / "new.c").mkdir()  # no file can be copied from a folder
    with pytest.raises(IsADirectoryError):
        mirror.follow(hello, mirror.scan(hello) | {"new.c": [1, 1, 0o644]}, copy)
    (hello / "new.c").rmdir()
    assert (copy / "hello.c").read_text() == "int changed;\n"
    (hello / "hello.c").write_text(first)
    os.utime(hello / "hello.c", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert follow(hello, copy)["hello.c"].decode() == first


# The build.


def test_a_module_is_installed_for_the_guests_of_a_kernel(hello: Path, kernel: Kernel) -> None:
    before = contents(hello)
    built = make(hello, kernel)
    assert contents(hello) == before
    assert not built.was_reused
    assert contents(built.layer).keys() == {f"usr/lib/modules/{RELEASE}/updates/hello.ko"}
    assert compiled(hello, kernel) == ["hello in the pool"]
    (reference,) = module_references(kernel.record.key)
    assert (reference.origin, reference.layers) == (str(hello), [str(built.layer)])
    (joined,) = anyio.run(lambda: buildlayer.obtain(kernel, with_runtime=True))
    assert contents(joined).keys() > contents(built.layer).keys()
    index = (joined / f"usr/lib/modules/{RELEASE}/modules.dep").read_text()
    assert index == "updates/hello.ko:\n"
    assert buildlayer.has_module(kernel, "hello")


def test_what_is_built_is_reused(hello: Path, kernel: Kernel) -> None:
    first = make(hello, kernel)
    again = make(hello, kernel)
    assert again.was_reused
    assert again.layer == first.layer
    assert compiled(hello, kernel) == ["hello in the pool"]


def test_only_what_changed_is_compiled(hello: Path, kernel: Kernel) -> None:
    (hello / "Kbuild").write_text("obj-m := hello.o other.o\n")
    (hello / "other.c").write_text(SOURCE.format(release=RELEASE))
    first = make(hello, kernel)
    (hello / "other.c").write_text(SOURCE.format(release=RELEASE) + "int x;\n")
    second = make(hello, kernel)
    assert second.layer != first.layer
    assert first.layer.is_dir()
    assert sorted(line.split()[0] for line in compiled(hello, kernel)) == ["hello", "other", "other"]
    assert [reference.layers for reference in module_references(kernel.record.key)] == [[str(second.layer)]]


def test_of_earlier_layers_only_the_last_stays(hello: Path, kernel: Kernel) -> None:
    layers = []
    for number in range(3):
        (hello / "number.h").write_text(f"{number} " * number)
        layers.append(make(hello, kernel).layer)
        assert all(layer.is_dir() for layer in layers), "guests may be running on them"
    for layer in layers:
        os.utime(layer, (0, 0))
    (hello / "number.h").write_text("3 3 3")
    make(hello, kernel)
    assert [layer.is_dir() for layer in layers] == [False, False, True]


@pytest.mark.parametrize("change", ["source", "make", "kernel"])
def test_other_inputs_are_another_module(change: str, hello: Path, kernel: Kernel, toy: Path) -> None:
    first = make(hello, kernel).layer
    if change == "source":
        (hello / "README").touch()
    other = make_kernel(toy, "CONFIG_X=y") if change == "kernel" else kernel
    words = ["KCFLAGS=-g"] if change == "make" else []
    second = make(hello, other, *words)
    assert not second.was_reused
    assert second.layer.name != first.name


def test_products_that_come_and_go_are_no_change(hello: Path, kernel: Kernel) -> None:
    make(hello, kernel)
    (hello / "hello.o").touch()
    (hello / ".hello.o.cmd").touch()
    (hello / ".git").mkdir()
    assert make(hello, kernel).was_reused


def test_a_failed_build_leaves_the_symbols_as_they_are_installed(hello: Path, kernel: Kernel) -> None:
    """Another module would be linked to those of the attempt that failed."""
    (hello / "Kbuild").write_text("obj-m := hello.o\nexports := shared\n")
    make(hello, kernel)
    (kept,) = Module(path=hello).symbols(kernel)
    installed = kept.read_text()
    assert "\tshared\t" in installed
    (hello / "Kbuild").write_text("obj-m := hello.o\nexports := other\nneeds := missing\n")
    with pytest.raises(UnpreparedError):
        make(hello, kernel)
    # modpost of some kernels writes them before it fails.
    (Module(path=hello).copy(kernel) / "Module.symvers").write_text("")
    assert [path.read_text() for path in Module(path=hello).symbols(kernel)] == [installed]


def test_the_compilers_first_error_names_the_users_file(hello: Path, kernel: Kernel) -> None:
    good = make(hello, kernel)
    (hello / "hello.c").write_text('#include "absent.h"\n')
    with pytest.raises(UnpreparedError, match="could not be built") as caught:
        make(hello, kernel)
    assert f"{hello}/hello.c:1:10: fatal error: absent.h" in caught.value.cause
    log = Path(caught.value.next_step.partition(": ")[2])
    assert "fatal error: absent.h" in log.read_text()
    # The guests still have the earlier layer.
    assert [reference.layers for reference in module_references(kernel.record.key)] == [[str(good.layer)]]
    (hello / "hello.c").write_text(SOURCE.format(release=RELEASE))
    assert not make(hello, kernel).was_reused


def test_a_module_of_another_kernel_is_named(hello: Path, kernel: Kernel) -> None:
    (hello / "hello.c").write_text(SOURCE.format(release="6.1.8-other"))
    with pytest.raises(DamagedError, match=r"are not for the kernel 6\.1\.9-toy") as caught:
        make(hello, kernel)
    assert "built for 6.1.8-other" in caught.value.cause
    assert module_references(kernel.record.key) == []
    assert not list(Module(path=hello).work.glob("layers/*"))


def test_a_kernel_whose_build_tree_is_gone(hello: Path, kernel: Kernel) -> None:
    built = make(hello, kernel)
    assert kernel.build_tree is not None
    shutil.rmtree(kernel.build_tree.folder)
    assert make(hello, kernel).layer == built.layer
    (hello / "hello.c").write_text("int x;\n")
    with pytest.raises(UnpreparedError, match="has no build tree any more"):
        make(hello, kernel)


def test_a_kbuild_that_names_no_module(hello: Path, kernel: Kernel) -> None:
    (hello / "Kbuild").write_text("obj-$(CONFIG_HELLO) := hello.o\n")
    with pytest.raises(UnpreparedError, match="no module came of") as caught:
        make(hello, kernel)
    assert "--make CONFIG_NAME=m" in caught.value.next_step
    make(hello, kernel, "CONFIG_HELLO=m")


def test_two_builds_of_one_module_at_once(hello: Path, kernel: Kernel) -> None:
    results: list[Built] = []

    async def both() -> None:
        pool = JobServer(2)

        async def one() -> None:
            results.append(
                await build(find_module(str(hello)), kernel, ModuleOptions(), pool, lambda _said: None)
            )

        async with anyio.create_task_group() as group:
            group.start_soon(one)
            group.start_soon(one)
        pool.close()

    anyio.run(both)
    assert sorted(built.was_reused for built in results) == [False, True]
    assert compiled(hello, kernel) == ["hello in the pool"]


def test_a_build_that_is_stopped_goes_on_the_next_time(hello: Path, kernel: Kernel) -> None:
    (hello / "Kbuild").write_text("obj-m := first.o hello.o\n")
    (hello / "first.c").write_text(SOURCE.format(release=RELEASE))
    (hello / "hello.c").write_text(SOURCE.format(release=RELEASE) + "/* TAKES_FOREVER */\n")

    async def stop() -> None:
        pool = JobServer(1)
        async with anyio.create_task_group() as group:
            group.start_soon(
                build, find_module(str(hello)), kernel, ModuleOptions(), pool, lambda _said: None
            )
            while not (copy_of(hello, kernel) / "started").exists():  # noqa: ASYNC110 - no event in make
                await anyio.sleep(0.01)
            group.cancel_scope.cancel()
        pool.close()

    anyio.run(stop)
    assert module_references(kernel.record.key) == []
    (hello / "hello.c").write_text(SOURCE.format(release=RELEASE))
    make(hello, kernel)
    assert [line.split()[0] for line in compiled(hello, kernel)] == ["first", "hello", "hello"]


# Several modules for one kernel.


def test_two_folders_of_one_name(tmp_path: Path, kernel: Kernel) -> None:
    make(write_module(tmp_path / "a/src", "first"), kernel)
    make(write_module(tmp_path / "b/src", "second"), kernel)
    assert buildlayer.has_module(kernel, "first")
    assert buildlayer.has_module(kernel, "second")


def test_a_module_of_two_folders_is_that_which_was_built_last(
    hello: Path, tmp_path: Path, kernel: Kernel
) -> None:
    said: list[str] = []
    other = write_module(tmp_path / "work tree")
    for folder in (hello, other, hello):
        make(folder, kernel, tell=said.append)
        assert [reference.origin for reference in module_references(kernel.record.key)] == [str(folder)]
    assert f"hello is no longer the one of {hello}" in said


def test_openzfs_is_none_of_them(hello: Path, tmp_path: Path, kernel: Kernel) -> None:
    layer = tmp_path / "layer"
    layer.mkdir()
    reference = buildlayer.LayerReference(name="zfs", origin=str(hello), layers=[str(layer)])
    buildlayer.write_reference(kernel.record.key, reference)
    make(write_module(tmp_path / "zfs"), kernel)
    assert len(buildlayer.references(kernel.record.key)) == 2
    assert len(module_references(kernel.record.key)) == 1


def write_chain(top: Path) -> list[Path]:
    """Three modules: the first needs the second, and the second needs the third."""
    folders = [write_module(top / name, name) for name in ("top", "middle", "base")]
    for folder, words in zip(
        folders,
        ("needs := middle_do", "needs := base_do\nexports := middle_do", "exports := base_do"),
        strict=True,
    ):
        with (folder / "Kbuild").open("a") as file:
            file.write(f"{words}\n")
    return folders


def test_modules_that_need_each_others_symbols(
    tmp_path: Path, cached: Kernel, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = write_chain(tmp_path)
    (tmp_path / "base/base.h").write_text("int base;\n")
    with (tmp_path / "middle/Kbuild").open("a") as file:
        file.write("KCFLAGS := -I$(M)/../base\n")
    middle = tmp_path / "middle/middle.c"
    middle.write_text(f'#include "base.h"\n{middle.read_text()}')
    argv = [*map(str, folders), "built", "--only", "6.1-x86_64", "--offline"]

    def rows(*argv: str) -> list[list[str]]:
        status, out, err = command(capsys, "build", *argv, "-q")
        assert status == 0, err
        lines = [line.split() for line in out.splitlines()]
        return [lines[0], [word for word in lines[2] if not word.endswith("s")]]

    assert rows(*argv) == [["cell", "top", "middle", "base"], ["6.1-x86_64", "built", "built", "built"]]
    assert {name for name in ("top", "middle", "base") if buildlayer.has_module(cached, name)} == {
        "top",
        "middle",
        "base",
    }
    assert rows(*argv)[1] == ["6.1-x86_64", "reused", "reused", "reused"]
    # A module is rebuilt if a header of another one changes.
    (tmp_path / "base/base.h").write_text("int base, more;\n")
    assert rows(*argv)[1] == ["6.1-x86_64", "built", "built", "built"]
    status, out, _ = command(capsys, "build", *argv[:3], "--only", "6.1-x86_64", "--offline", "built")
    assert (status, out.count("reused")) == (0, 3)
    assert "quizmatrix run built --only 6.1-x86_64 -- modprobe base" in out


def test_a_symbol_that_nobody_exports(
    tmp_path: Path, cached: Kernel, capsys: pytest.CaptureFixture[str]
) -> None:
    top, middle, base = map(str, write_chain(tmp_path))
    only = ("--only", "6.1-x86_64", "--source", "debian-source", "--offline", "-q")
    status, out, err = command(capsys, "build", top, middle, *only)
    assert (status, out.split()[-2:]) == (125, ["failed", "failed"])
    assert f'modpost: "base_do" [{middle}/middle.ko] undefined!' in err
    assert "Name the folder of the module that exports it, too" in err
    assert command(capsys, "build", base, *only)[0] == 0
    status, _, err = command(capsys, "build", middle, *only)
    assert status == 125
    assert f"It is in {base}: quizmatrix module build {base} {middle}" in err
    # The user's own KBUILD_EXTRA_SYMBOLS stays.
    (symbols,) = Module(path=Path(base)).symbols(cached)
    assert command(capsys, "build", middle, "--make", f"KBUILD_EXTRA_SYMBOLS={symbols}", *only)[0] == 0


# Bad input.


def test_a_folder_without_a_kbuild(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no kernel module") as caught:
        find_module(str(tmp_path))
    assert "neither a Kbuild nor a Makefile" in caught.value.cause
    with pytest.raises(UsageError, match="there is no folder"):
        find_module(str(tmp_path / "absent"))


def test_a_makefile_will_do(tmp_path: Path) -> None:
    (tmp_path / "Makefile").write_text("VERSION := 1\nobj-m := hello.o\n")
    assert find_module(str(tmp_path)).path == tmp_path


def test_a_whole_kernel(toy: Path) -> None:
    with pytest.raises(UsageError, match=r"is a whole kernel, 6\.1\.9") as caught:
        find_module(str(toy))
    assert "kernel build path:" in caught.value.next_step


def test_a_folder_that_the_cache_lies_in(hello: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUIZMATRIX_CACHE_DIR", str(hello / "cache"))
    with pytest.raises(UsageError, match="cannot be built as a module"):
        find_module(str(hello))


@pytest.mark.parametrize("word", ["CONFIG_HELLO", "=m", "a b=c", "M=/tmp", "CC=clang"])
def test_what_make_is_not_given(word: str) -> None:
    with pytest.raises(UsageError, match="--make"):
        check_options(ModuleOptions(make=(word,)))
    check_options(ModuleOptions(make=("CONFIG_HELLO=m", "KCFLAGS=-g -DX='a b'")))


# The command.


@pytest.fixture
def cached(kernel: Kernel) -> Kernel:
    """The toy kernel, in place of Debian's 6.1."""
    recipe = source.source_named("debian-source").recipe("6.1", X86_64)
    artifact.write_reference("debian-source:6.1", "x86_64", recipe, kernel.record.key)
    return kernel


def command(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    status = run_command(["module", *argv])
    said = capsys.readouterr()
    return status, said.out, said.err


def test_the_command_says_what_to_type_next(
    hello: Path, cached: Kernel, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ("build", str(hello), "--only", "6.1-x86_64", "--source", "debian-source", "--offline")
    status, out, err = command(capsys, *argv)
    assert (status, out.splitlines()[2].split()[:2]) == (0, ["6.1-x86_64", "built"])
    assert out.endswith("  quizmatrix run --only 6.1-x86_64 --source debian-source -- modprobe hello\n")
    assert "6.1-x86_64: compiling" in err
    status, out, err = command(capsys, *argv, "-q")
    assert (status, out.splitlines()[2:], err) == (0, ["6.1-x86_64  reused"], "")


def test_without_a_source_where_the_matrix_has_it(
    hello: Path, cached: Kernel, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ("build", str(hello), "built", "--only", "6.1-x86_64", "--offline")
    _, out, _ = command(capsys, *argv)
    assert out.endswith("  quizmatrix run built --only 6.1-x86_64 -- modprobe hello\n")


def test_a_cell_that_fails_does_not_stop_the_others(
    hello: Path, cached: Kernel, capsys: pytest.CaptureFixture[str]
) -> None:
    only = "debian-source:6.1-x86_64,6.1-x86_64,6.12-x86_64"
    status, out, err = command(capsys, "build", str(hello), "--only", only, "--offline", "-q")
    assert status == 125
    rows = {line.split()[0]: line.split()[1] for line in out.splitlines()[2:]}
    assert rows == {"debian-source:6.1-x86_64": "built", "6.1-x86_64": "failed", "6.12-x86_64": "failed"}
    assert "the kernel debian:6.1 for x86_64 is not in the cache" in err
    assert "the kernel debian:6.12 for x86_64 is not in the cache" in err


def test_a_matrix_behind_an_option(hello: Path, cached: Kernel, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = command(capsys, "build", str(hello), "--offline", "--only", "6.1-x86_64", "built")
    assert status == 0
    assert "quizmatrix run built --only 6.1-x86_64 -- modprobe hello" in out


def test_kernel_show_says_what_was_built_for_it(
    hello: Path, kernel: Kernel, capsys: pytest.CaptureFixture[str]
) -> None:
    make(hello, kernel)
    assert run_command(["kernel", "show", kernel.record.key]) == 0
    assert f": from {hello}, in all its guests" in capsys.readouterr().out


def test_a_kernel_that_is_removed_takes_its_modules_with_it(
    hello: Path, kernel: Kernel, toy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = make_kernel(toy, "CONFIG_X=y")
    make(hello, kernel)
    kept = make(hello, other)
    assert run_command(["kernel", "remove", kernel.record.key]) == 0
    work = Module(path=hello).work
    assert not [path for path in work.rglob("*") if path.name.startswith(kernel.record.key)]
    assert list((work / "layers").iterdir()) == [kept.layer]
    assert make(hello, other).was_reused


def test_list_and_remove(
    hello: Path, tmp_path: Path, cached: Kernel, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_module(tmp_path / "other", "other")
    for folder in (hello, other):
        assert command(capsys, "build", str(folder), "built", "--only", "6.1-x86_64", "--offline")[0] == 0
    out = command(capsys, "list")[1]
    assert [line.split()[:2] for line in out.splitlines()[2:]] == [
        [name, cached.record.key] for name in ("hello", "other")
    ]
    assert command(capsys, "remove", "hello")[0] == 0
    assert [reference.origin for reference in module_references(cached.record.key)] == [str(other)]
    assert command(capsys, "remove", str(other))[0] == 0
    assert command(capsys, "list")[1] == "No module was built yet.\n"
    status, _, err = command(capsys, "remove", "hello")
    assert status == 125
    assert "no module was built of `hello`" in err
