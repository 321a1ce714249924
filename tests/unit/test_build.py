"""Kernels from source: fragments, their check, and a build of a toy tree."""

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import anyio
import msgspec
import pytest
from msgspec.structs import replace

from quizmatrix.cli import run_command
from quizmatrix.core.errors import DamagedError, DataError, UnpreparedError, UsageError
from quizmatrix.core.version import KernelVersion
from quizmatrix.kernel import artifact, source
from quizmatrix.kernel.build import build, builds_dir
from quizmatrix.kernel.order import DEFAULT, KernelOptions, Order
from quizmatrix.kernel.tree import KernelTree, read_version
from quizmatrix.model import kconfig
from quizmatrix.model.arch import arch_names, load_arch

V6_1 = KernelVersion("6.1.9")


def lines(text: str, version: str = "6.1") -> list[str]:
    return [wish.line for wish in kconfig.parse_fragment(text, "f.config", KernelVersion(version))]


def test_fragments_are_limited_by_version() -> None:
    text = "# why\nCONFIG_A=y\n\nCONFIG_B=m  # from 5.15\nCONFIG_C=10 # before 6.0, optional\n"
    assert lines(text, "5.10") == ["CONFIG_A=y", "CONFIG_C=10"]
    assert lines(text, "6.0") == ["CONFIG_A=y", "CONFIG_B=m"]
    assert lines(text, "6.0-rc1") == lines(text, "6.0.9") == lines(text, "next-20261120")
    assert lines('CONFIG_S="a # b"\n') == ['CONFIG_S="a # b"']


def test_the_kernels_own_word_for_no() -> None:
    assert lines("# CONFIG_A is not set\n# CONFIG_B is not\nCONFIG_C=y\n") == ["CONFIG_A=n", "CONFIG_C=y"]


@pytest.mark.parametrize(
    "line",
    [
        "A=y",
        "CONFIG_A",
        "CONFIG_A=y=y",
        "CONFIG_A=yes",
        "CONFIG_A=y # since 5.0",
        "# CONFIG_A is not set x\nfoo",
    ],
)
def test_a_line_that_is_none_is_named(line: str) -> None:
    with pytest.raises(DataError, match=r"f\.config"):
        lines(line)


def test_lines_that_contradict_each_other_are_named() -> None:
    with pytest.raises(DataError, match=r"f\.config, line 2") as caught:
        lines("CONFIG_A=y\nCONFIG_A=n\n")
    assert "is asked to be n, and y by f.config:1" in caught.value.cause
    assert lines("CONFIG_A=y # before 6.0\nCONFIG_A=n # from 6.0\n") == ["CONFIG_A=n"]


def test_the_more_specific_wish_counts() -> None:
    first = {wish.symbol: wish for wish in kconfig.wishes_for("x86_64", V6_1, None, [])}
    assert (first["VT"].value, first["VT"].origin.partition(":")[0]) == ("n", "common.config")
    later = {wish.symbol: wish for wish in kconfig.wishes_for("x86_64", V6_1, None, ["CONFIG_VT=y"])}
    assert (later["VT"].value, later["VT"].origin) == ("y", "asked for:1")


def test_the_kunitconfig_of_a_tree_belongs_to_the_variant_kunit(tmp_path: Path) -> None:
    assert kconfig.fragment_of_tree(tmp_path, "kunit") is None
    (tmp_path / ".kunitconfig").write_text("CONFIG_KUNIT_TEST=y\nCONFIG_MY_TEST=m\nCONFIG_VT=y\n")
    assert kconfig.fragment_of_tree(tmp_path, None) is None
    assert kconfig.fragment_of_tree(tmp_path, "debug") is None
    own = kconfig.fragment_of_tree(tmp_path, "kunit")
    found = {w.symbol: w for w in kconfig.wishes_for("s390x", V6_1, "kunit", ["CONFIG_VT=n"], own)}
    assert [found[name].value for name in ("KUNIT", "KUNIT_TEST", "MY_TEST", "VT")] == ["y", "y", "m", "n"]
    assert found["MY_TEST"].origin == f"{own}:2"
    (tmp_path / ".kunitconfig").write_text("KUNIT_TEST=y\n")
    with pytest.raises(DataError, match=r"\.kunitconfig, line 1"):
        kconfig.wishes_for("s390x", V6_1, "kunit", [], own)


@pytest.mark.parametrize("arch", arch_names())
@pytest.mark.parametrize("variant", [None, *kconfig.variants()])
def test_fragments_that_ship(arch: str, variant: str | None) -> None:
    for version in ("4.18", "5.10", "6.1", "6.12", "7.2"):
        assert kconfig.wishes_for(arch, KernelVersion(version), variant, [])


@pytest.fixture
def tree(toy: Path) -> KernelTree:
    return KernelTree(path=toy, version=V6_1, key="toy", origin="toy 6.1.9")


X86_64 = load_arch("x86_64")


def quietly(options: KernelOptions = DEFAULT) -> Order:
    return Order(arch=X86_64, options=options, tell=lambda _said: None)


def make(tree: KernelTree, *config: str, variant: str | None = None) -> str:
    options = KernelOptions(variant=variant, config=config)
    return anyio.run(build, tree, quietly(options))


def test_what_nothing_asks_for_is_removed(tree: KernelTree, capsys: pytest.CaptureFixture[str]) -> None:
    used, unused = make(tree), make(tree, "CONFIG_X=y")
    artifact.write_reference("debian-source:6.1", "x86_64", "", used)
    assert run_command(["kernel", "show", "6.1.9-x86_64"]) == 0
    assert used in capsys.readouterr().out
    assert run_command(["kernel", "remove", "--unused"]) == 0
    assert capsys.readouterr().out == f"removed {unused}\n"
    assert artifact.KERNELS.stored() == [used]
    assert sorted(path.name for path in builds_dir().iterdir() if path.is_dir()) == [used]
    assert run_command(["kernel", "remove"]) == 125


def test_a_kernel_is_named_by_what_is_not_empty(tree: KernelTree, capsys: pytest.CaptureFixture[str]) -> None:
    key = make(tree)
    assert run_command(["kernel", "remove", ""]) == 125
    assert artifact.KERNELS.stored() == [key]
    make(tree, "CONFIG_X=y")
    assert run_command(["kernel", "show", "6.1.9"]) == 125
    assert key in capsys.readouterr().err
    obtain(f"path:{tree.path}")
    assert run_command(["kernel", "show", f"path:{tree.path}-x86_64"]) == 0
    assert str(tree.path) in capsys.readouterr().out


def test_a_symbol_is_named_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["kernel", "build", "6.1", "-e", "KASAN=y"]) == 125
    assert "`KASAN=y` is no symbol" in capsys.readouterr().err


def test_numbers_are_not_those_of_tinyconfig(tree: KernelTree) -> None:
    def stack(*config: str) -> str:
        return kconfig.read_config((artifact.KERNELS.path(make(tree, *config)) / "config").read_text())[
            "STACK"
        ]

    assert stack() == "14"
    assert stack("CONFIG_STACK=15") == "15"


def test_a_build_writes_nothing_here(
    tree: KernelTree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    script = tree.path / "scripts/kconfig/merge_config.sh"
    script.write_text(f"touch ./.tmp.config.1\n{script.read_text()}")
    monkeypatch.chdir(here)
    make(tree)
    assert not list(here.iterdir())


def test_a_kernel_that_only_a_full_reading_shows_damaged(tree: KernelTree) -> None:
    key = make(tree)
    image = artifact.KERNELS.path(key) / artifact.SYSTEM_MAP
    before = image.stat()
    image.write_bytes(b"x" * before.st_size)
    os.utime(image, ns=(before.st_atime_ns, before.st_mtime_ns))
    recipe = source.source_named("path").recipe(str(tree.path), X86_64)
    artifact.write_reference(f"path:{tree.path}", "x86_64", recipe, key)

    async def obtain() -> artifact.Kernel:
        return await source.obtain(f"path:{tree.path}", quietly(), thorough=True)

    mended = anyio.run(obtain)
    mended.check(thoroughly=True)
    assert b"_text" in (mended.folder / artifact.SYSTEM_MAP).read_bytes()


def test_a_module_is_read_only_where_all_is_checked(tree: KernelTree) -> None:
    made = artifact.load(make(tree))
    assert made is not None
    module = made.modules / "kernel/toy.ko"
    module.parent.mkdir()
    module.write_bytes(b"a module")
    for name in ("kernel.json", "modules.json"):
        (made.folder / name).unlink()
    artifact.write_record(made.folder, made.record)
    kernel = artifact.load(made.record.key)
    assert kernel is not None
    kernel.check(thoroughly=True)
    # Every run reads the record.
    assert not [name for name in kernel.record.files if name.endswith(".ko")]
    module.write_bytes(b"damaged")
    kernel.check()
    with pytest.raises(DamagedError, match=re.escape(str(module))):
        kernel.check(thoroughly=True)
    (kernel.folder / "modules.json").write_bytes(b"{}")
    with pytest.raises(DamagedError, match=r"modules\.json"):
        kernel.check()


def test_a_build_leaves_a_kernel(tree: KernelTree) -> None:
    kernel = artifact.load(make(tree))
    assert kernel is not None
    kernel.check(thoroughly=True)
    assert kernel.record.release == "6.1.9-toy"
    assert kernel.image.read_bytes().startswith(b"\x7fELF")
    assert b".symtab" not in kernel.image.read_bytes()
    assert (kernel.modules / "modules.dep").exists()
    assert not (kernel.modules / "build").is_symlink()
    assert "VIRTIO_CONSOLE" in {wish.symbol for wish in kernel.record.wishes}
    assert not (tree.path / ".config").exists()
    place = kernel.build_tree
    assert place is not None
    assert place.vmlinux is not None
    assert place.vmlinux.is_file()


def test_what_is_built_is_not_built_again(tree: KernelTree) -> None:
    key = make(tree)
    assert make(tree) == key
    assert (builds_dir() / key / "count").read_text() == "built\n"


def test_a_build_tree_that_is_gone(tree: KernelTree) -> None:
    spec = f"path:{tree.path}"

    def obtain(*, needs_tree: bool) -> artifact.Kernel:
        order = msgspec.structs.replace(quietly(), needs_tree=needs_tree)
        return anyio.run(lambda: source.obtain(spec, order))

    place = obtain(needs_tree=False).build_tree
    assert place is not None
    shutil.rmtree(place.folder)
    # A guest needs only the kernel, not its build tree.
    assert obtain(needs_tree=False).build_tree is None
    assert obtain(needs_tree=True).build_tree == place


def test_other_options_are_another_kernel(tree: KernelTree) -> None:
    keys = {make(tree), make(tree, "CONFIG_X=y"), make(tree, variant="debug"), make(tree, "CONFIG_X=n")}
    assert len(keys) == 4


def test_an_architectures_own_words_for_make(tree: KernelTree) -> None:
    def made(*words: str) -> str:
        facts = X86_64.facts
        more = replace(facts.build, make_options=list(words))
        order = replace(quietly(), arch=replace(X86_64, facts=replace(facts, build=more)))
        return anyio.run(build, tree, order)

    assert len({made(), made("CFLAGS_toy.o=-O2"), made("CFLAGS_toy.o=-O1")}) == 3
    with pytest.raises(UnpreparedError, match="could not be built for x86_64"):
        made("CFLAGS_toy.o=-DBROKEN")


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("CONFIG_TYPO_VIRTIO=y", ["CONFIG_TYPO_VIRTIO=y (asked for:1) is not set", "knows this symbol"]),
        ("CONFIG_TYPO_NEEDS_ABSENT=y", ["knows this symbol (was NEEDS_ABSENT meant?)"]),
        ("CONFIG_NEEDS_ABSENT=y", ["CONFIG_NEEDS_ABSENT=y", "it needs ABSENT"]),
    ],
)
def test_what_is_not_granted_is_named(config: str, words: list[str], tree: KernelTree) -> None:
    with pytest.raises(UnpreparedError, match="cannot be configured as asked") as caught:
        make(tree, config)
    for word in words:
        assert word in caught.value.cause
    assert "64BIT" not in caught.value.cause
    assert artifact.KERNELS.stored() == []
    assert make(tree, f"{config}  # optional")


def test_the_compilers_first_error_is_shown(tree: KernelTree) -> None:
    with pytest.raises(UnpreparedError, match="could not be built for x86_64") as caught:
        make(tree, "CONFIG_BREAKS_COMPILE=y")
    assert "error: #error this kernel cannot be compiled" in caught.value.cause
    log = Path(caught.value.next_step.partition(": ")[2])
    assert "  CC      toy.o" in log.read_text()
    assert artifact.KERNELS.stored() == []


def test_a_tree_that_was_built_in_place(tree: KernelTree) -> None:
    (tree.path / ".config").touch()
    with pytest.raises(UnpreparedError) as caught:
        make(tree)
    assert "make mrproper" in caught.value.next_step


def test_a_build_that_is_stopped_leaves_no_kernel(tree: KernelTree) -> None:
    async def stop() -> None:
        async with anyio.create_task_group() as group:
            options = KernelOptions(config=("CONFIG_TAKES_FOREVER=y",))
            group.start_soon(build, tree, quietly(options))
            while not list(builds_dir().glob("*/started")):  # noqa: ASYNC110 - there is no event in make
                await anyio.sleep(0.01)
            group.cancel_scope.cancel()

    anyio.run(stop)
    assert artifact.KERNELS.stored() == []
    assert make(tree)


def test_two_builds_of_one_kernel_at_once(tree: KernelTree) -> None:
    keys: list[str] = []

    async def one() -> None:
        keys.append(await build(tree, quietly()))

    async def both() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(one)
            group.start_soon(one)

    anyio.run(both)
    assert len(set(keys)) == 1
    assert (builds_dir() / keys[0] / "count").read_text() == "built\n"


def obtain(text: str, tell: Callable[[str], None] = lambda _said: None) -> artifact.Kernel:
    async def play() -> artifact.Kernel:
        return await source.obtain(text, Order(arch=X86_64, tell=tell), offline=True)

    return anyio.run(play)


def test_a_work_tree_is_built_again_when_it_changed(tree: KernelTree) -> None:
    text = f"path:{tree.path}"
    before = {path: path.stat().st_mtime_ns for path in tree.path.rglob("*")}
    first = obtain(text)
    assert obtain(text).record.key == first.record.key
    (place,) = builds_dir().glob("*/count")
    assert place.read_text() == "built\n"
    with (tree.path / "toy.c").open("a") as file:
        file.write("/* changed */\n")
    second = obtain(text)
    assert second.record.key != first.record.key
    assert [*builds_dir().glob("*/count")] == [place]
    assert first.build_tree is None
    assert second.build_tree is not None
    assert second.build_tree.folder == place.parent
    assert place.read_text() == "built\nbuilt\n"
    after = {path: path.stat().st_mtime_ns for path in tree.path.rglob("*") if path.name != "toy.c"}
    assert after.items() <= before.items()
    assert source.find(text, X86_64) == second
    assert source.find(text, X86_64, KernelOptions(config=("CONFIG_X=y",))) is None


def test_what_changes_during_a_build_is_built_the_next_time(tree: KernelTree) -> None:
    def change(said: str) -> None:
        if said.startswith("building"):
            with (tree.path / "toy.c").open("a") as file:
                file.write("/* changed */\n")

    first = obtain(f"path:{tree.path}", change)
    second = obtain(f"path:{tree.path}")
    assert second.record.key != first.record.key


@pytest.mark.parametrize(
    ("fields", "version"),
    [
        ("VERSION = 6\nPATCHLEVEL = 12\nSUBLEVEL = 5\nEXTRAVERSION =\n", "6.12.5"),
        ("VERSION = 6\nPATCHLEVEL = 13\nSUBLEVEL = 0\nEXTRAVERSION = -rc2\n", "6.13-rc2"),
        ("VERSION = 6\nPATCHLEVEL = 13\nSUBLEVEL = 0\nEXTRAVERSION = -local\n", "6.13.0"),
    ],
)
def test_the_version_of_a_tree(fields: str, version: str, tmp_path: Path) -> None:
    (tmp_path / "Makefile").write_text("# SPDX\n" + fields)
    assert read_version(tmp_path).text == version


@pytest.mark.parametrize("name", ["path", "git", "tarball"])
def test_places_of_sources_know_home(name: str, tree: KernelTree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tree.path.parent))
    (tree.path.parent / "x.tar").touch()
    there = "x.tar" if name == "tarball" else tree.path.name
    spec = source.parse_spec(f"{name}:~/{there}")
    assert spec.wanted.removesuffix("#HEAD") == str(tree.path.parent / there)
    with pytest.raises(UsageError, match="no-such-user"):
        source.parse_spec(f"{name}:~no-such-user/x")


def test_a_folder_that_is_no_kernel(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        source.parse_spec(f"path:{tmp_path}")
    assert "is no kernel source" in caught.value.cause
