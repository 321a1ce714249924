"""Build layers: what was built for a kernel, and the index of all its modules."""

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import anyio
import pytest

from quizmatrix.core import objectfile
from quizmatrix.core.errors import DamagedError
from quizmatrix.core.version import KernelVersion
from quizmatrix.kernel import artifact, buildlayer
from quizmatrix.kernel.artifact import Kernel
from quizmatrix.kernel.build import build
from quizmatrix.kernel.buildlayer import LayerReference
from quizmatrix.kernel.order import Order
from quizmatrix.kernel.tree import KernelTree
from quizmatrix.model.arch import load_arch

RELEASE = "6.1.9-toy"
UPDATES = f"usr/lib/modules/{RELEASE}/updates"
MAGIC = 'const char magic[] __attribute__((section(".modinfo"))) = "vermagic={} SMP";\n'


@pytest.fixture
def kernel(toy: Path) -> Kernel:
    tree = KernelTree(path=toy, version=KernelVersion("6.1.9"), key="toy", origin="toy 6.1.9")
    order = Order(arch=load_arch("x86_64"), tell=lambda _said: None)
    kernel = artifact.load(anyio.run(build, tree, order))
    assert kernel is not None
    return kernel


def put(layer: Path, name: str, *, release: str = RELEASE, magic: str = RELEASE, more: str = "") -> Path:
    """Compile a module into a layer. more: code that makes two modules of one name differ in size."""
    target = layer / f"usr/lib/modules/{release}/updates/{name}.ko"
    target.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        ["gcc", "-xc", "-c", "-o", str(target), "-"], input=(MAGIC.format(magic) + more).encode(), check=True
    )
    return layer


def refer(kernel: Kernel, name: str, *layers: Path, runtime: tuple[Path, ...] = ()) -> None:
    reference = LayerReference(
        name=name, origin=f"/src/{name}", layers=[*map(str, layers)], runtime=[*map(str, runtime)]
    )
    buildlayer.write_reference(kernel.record.key, reference)


def obtain(kernel: Kernel, *, with_runtime: bool = False) -> list[Path]:
    async def play() -> list[Path]:
        return await buildlayer.obtain(kernel, with_runtime=with_runtime)

    return anyio.run(play)


def names(kernel: Kernel) -> list[str]:
    return [reference.name for reference in buildlayer.references(kernel.record.key)]


def folder(path: Path) -> Path:
    path.mkdir()
    return path


def contents(layer: Path) -> set[str]:
    return {str(path.relative_to(layer)) for path in layer.rglob("*")}


def index_of(layers: list[Path], name: str = "modules.dep") -> str:
    return (layers[-1] / f"usr/lib/modules/{RELEASE}/{name}").read_text()


def test_a_kernel_that_nothing_was_built_for(kernel: Kernel, tmp_path: Path) -> None:
    assert obtain(kernel) == []
    refer(kernel, "programs", folder(tmp_path / "programs"))
    (tmp_path / "programs/file").touch()
    (joined,) = obtain(kernel)
    assert contents(joined) == {"file"}


def test_references_are_by_name(kernel: Kernel, tmp_path: Path) -> None:
    one, two = folder(tmp_path / "one"), folder(tmp_path / "two")
    refer(kernel, "zfs", one)
    refer(kernel, "hello", one, two)
    assert names(kernel) == ["hello", "zfs"]
    refer(kernel, "zfs", two)
    assert [found.layers for found in buildlayer.references(kernel.record.key)][1] == [str(two)]
    buildlayer.forget(kernel.record.key, "zfs")
    buildlayer.forget(kernel.record.key, "zfs")
    assert names(kernel) == ["hello"]
    assert buildlayer.kernels() == [kernel.record.key]
    buildlayer.remove(kernel.record.key)
    assert names(kernel) == []


@pytest.mark.parametrize("what", ["layer", "runtime"])
def test_a_reference_whose_layers_are_gone_is_none(what: str, kernel: Kernel, tmp_path: Path) -> None:
    layer = put(folder(tmp_path / "layer"), "hello")
    runtime = folder(tmp_path / "runtime")
    refer(kernel, "hello", layer, runtime=(runtime,))
    assert names(kernel) == ["hello"]
    shutil.rmtree(tmp_path / what)
    assert names(kernel) == []
    assert obtain(kernel) == []
    assert not buildlayer.has_module(kernel, "hello")


def test_a_reference_that_cannot_be_read_is_none(kernel: Kernel, tmp_path: Path) -> None:
    refer(kernel, "hello", folder(tmp_path / "layer"))
    path = buildlayer.root_of(kernel).with_name("hello.json")
    path.write_bytes(path.read_bytes()[:-5])
    assert names(kernel) == []


def test_all_layers_in_one_folder_with_one_index(kernel: Kernel, tmp_path: Path) -> None:
    own = put(buildlayer.root_of(kernel), "by_hand")
    a = put(tmp_path / "a", "first")
    b = put(tmp_path / "b", "second")
    runtime = folder(tmp_path / "runtime")
    (runtime / "library").write_text("needed")
    refer(kernel, "a", a, b, runtime=(runtime,))
    layers = obtain(kernel, with_runtime=True)
    assert layers[:-1] == [own]
    assert [*map(buildlayer.tag_of, layers)] == ["hand", "joined"]
    assert contents(layers[-1]) >= {"library", f"{UPDATES}/first.ko", f"{UPDATES}/second.ko"}
    assert (layers[-1] / UPDATES / "first.ko").samefile(a / UPDATES / "first.ko")
    assert "library" not in contents(obtain(kernel)[-1])
    assert f"{UPDATES}/by_hand.ko" not in contents(layers[-1])
    assert sorted(index_of(layers).split()) == [
        f"updates/{name}.ko:" for name in ("by_hand", "first", "second")
    ]
    for name in ("by_hand", "first", "second"):
        assert buildlayer.has_module(kernel, name)
    assert not buildlayer.has_module(kernel, "third")
    # All files of the index exist, including those that are empty.
    assert "modules.alias.bin" in {path.name for path in layers[-1].rglob("*")}


def test_layers_without_modules_are_joined_too(kernel: Kernel, tmp_path: Path) -> None:
    a, b = folder(tmp_path / "a"), folder(tmp_path / "b")
    (a / "file").write_text("a")
    (b / "file").write_text("b")
    refer(kernel, "programs", a, b)
    (joined,) = obtain(kernel)
    assert (joined / "file").read_text() == "b"
    assert (a / "file").read_text() == "a"


def test_upper_layers_hide_what_is_below(kernel: Kernel, tmp_path: Path) -> None:
    """Entries of all types (files, symlinks, folders) are laid over one another as in overlayfs."""
    lower, upper = folder(tmp_path / "lower"), folder(tmp_path / "upper")
    for name in ("file", "was_file"):
        (lower / name).write_text("lower")
    (lower / "link").symlink_to("file")
    (lower / "folder_link").symlink_to("folder")
    for name in ("folder", "was_folder"):
        (lower / name / "deep").mkdir(parents=True)
    (upper / "file").symlink_to("link")
    (upper / "link").write_text("upper")
    (upper / "was_file").mkdir()
    (upper / "was_folder").write_text("upper")
    (upper / "folder_link").mkdir()
    (upper / "folder/more").mkdir(parents=True)
    (upper / "folder").chmod(0o1577)
    refer(kernel, "programs", lower, upper)
    (joined,) = obtain(kernel)
    assert contents(joined) == {
        *("file", "link", "was_file", "was_folder", "folder_link", "folder", "folder/deep", "folder/more")
    }
    assert str((joined / "file").readlink()) == "link"
    assert (joined / "link").read_text() == (joined / "was_folder").read_text() == "upper"
    assert not (joined / "folder_link").is_symlink()
    assert (joined / "folder").stat().st_mode & 0o7777 == 0o1777
    assert (lower / "file").read_text() == "lower"


def test_what_cannot_be_linked_is_copied(kernel: Kernel, tmp_path: Path) -> None:
    """Linux has no hard links from one file system to another."""
    memory = Path("/dev/shm")
    if memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("/dev/shm and the temporary folder are one file system")
    with tempfile.TemporaryDirectory(dir=memory) as name:
        (Path(name) / "file").write_text("there")
        (Path(name) / "link").symlink_to("nowhere")
        refer(kernel, "programs", Path(name), folder(tmp_path / "a"))
        (joined,) = obtain(kernel)
        assert (joined / "file").read_text() == "there"
        assert str((joined / "link").readlink()) == "nowhere"


def test_what_depends_on_a_module_of_another_layer(kernel: Kernel, tmp_path: Path) -> None:
    """depmod(8) finds a symbol's module only if it sees all modules at once."""
    exported = 'int shared; const char name[] __attribute__((section("__ksymtab_strings"))) = "shared";\n'
    exported += "int *const __ksymtab_shared = &shared;\n"
    a = put(tmp_path / "a", "gives", more=exported)
    b = put(tmp_path / "b", "takes", more="extern int shared; int *taken = &shared;\n")
    refer(kernel, "a", a)
    refer(kernel, "b", b)
    assert "updates/takes.ko: updates/gives.ko\n" in index_of(obtain(kernel))


def test_an_index_is_taken_again_where_no_name_changed(kernel: Kernel, tmp_path: Path) -> None:
    """depmod(8) takes seconds for the thousands of modules of a ready-made kernel."""

    def indexes() -> int:
        return len(list(buildlayer.store_of(kernel.record.key).root.glob("index-*")))

    local = "static int one __attribute__((used));\n"
    alias = 'const char alias[] __attribute__((section(".modinfo"))) = "alias=other";\n'
    exported = 'const char name[] __attribute__((section("__ksymtab_strings"))) = "shared";\n'
    edits = {
        "int before;\n": 1,
        f"{local}int before = 7;\n": 1,
        "int after;\n": 2,
        "extern int before; int *taken = &before;\n": 3,
        f"int before; {alias}": 4,
        f"int before; {exported}": 5,
    }
    for number, (text, count) in enumerate(edits.items()):
        refer(kernel, "hello", put(tmp_path / str(number), "hello", more=text))
        layers = obtain(kernel)
        assert index_of(layers) == "updates/hello.ko:\n"
        assert ("alias other hello" in index_of(layers, "modules.alias")) == ("alias=" in text)
        assert indexes() == count, text


def test_a_module_too_large_to_be_taken_apart_is_known_by_all_of_it(
    kernel: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hostile one would take the host's memory: its symbols, or a section that is compressed."""

    def indexes() -> int:
        return len(list(buildlayer.store_of(kernel.record.key).root.glob("index-*")))

    monkeypatch.setattr(objectfile, "_SECTION_AT_MOST", 10)
    for number, text in enumerate(["int before = 1;\n", "int before = 2;\n"]):
        refer(kernel, "hello", put(tmp_path / str(number), "hello", more=text))
        assert index_of(obtain(kernel)) == "updates/hello.ko:\n"
        assert indexes() == number + 1


def test_of_two_of_one_name_the_upper_counts(kernel: Kernel, tmp_path: Path) -> None:
    alias = 'const char alias[] __attribute__((section(".modinfo"))) = "alias=from-{}";\n'
    refer(kernel, "b", put(tmp_path / "upper", "hello", more=alias.format("upper")))
    refer(kernel, "a", put(tmp_path / "lower", "hello", more=alias.format("lower")))
    layers = obtain(kernel)
    assert index_of(layers) == "updates/hello.ko:\n"
    said = index_of(layers, "modules.alias")
    assert "alias from-upper hello" in said
    assert "from-lower" not in said


def test_layers_are_joined_once_for_a_state(kernel: Kernel, tmp_path: Path) -> None:
    layer = put(tmp_path / "a", "hello")
    refer(kernel, "a", layer)
    first = obtain(kernel)[-1]
    (first / "mark").touch()
    assert obtain(kernel)[-1] == first
    assert (first / "mark").exists()
    put(layer, "other")
    assert obtain(kernel)[-1] != first


def test_what_no_guest_got_for_a_while_is_forgotten(kernel: Kernel, tmp_path: Path) -> None:
    refer(kernel, "a", tmp_path / "a")
    made = []
    for number in range(3):
        put(tmp_path / "a", f"number{number}")
        made.append(obtain(kernel)[-1])
    assert all(joined.is_dir() for joined in made)
    long_ago = time.time() - buildlayer.RECENT - 60
    for joined in made:
        os.utime(joined, (long_ago, long_ago))
    os.utime(made[1], (long_ago + 1, long_ago + 1))
    assert obtain(kernel)[-1] == made[-1]
    # A test that takes even longer may use the layer before.
    assert [joined.is_dir() for joined in made] == [False, True, True]
    assert made[-1].stat().st_mtime > long_ago + 60


def test_a_module_of_another_kernel_is_named(kernel: Kernel, tmp_path: Path) -> None:
    layer = put(tmp_path / "a", "hello", magic="6.1.8-other")
    refer(kernel, "a", layer)
    with pytest.raises(DamagedError, match=r"hello\.ko are not for the kernel 6\.1\.9-toy") as caught:
        obtain(kernel)
    assert caught.value.cause == "they were built for 6.1.8-other"
    with pytest.raises(DamagedError):
        buildlayer.check(kernel, layer)
    assert not list(buildlayer.root_of(kernel).parent.glob("*joined*"))


def test_layers_that_are_all_for_another_release(kernel: Kernel, tmp_path: Path) -> None:
    layer = put(tmp_path / "a", "hello", release="6.1.8-other")
    with pytest.raises(DamagedError, match=r"are not for the kernel 6\.1\.9-toy"):
        buildlayer.check(kernel, layer)
    refer(kernel, "a", layer)
    with pytest.raises(DamagedError) as caught:
        obtain(kernel)
    assert caught.value.cause == "they were built for 6.1.8-other"


def test_a_lib_of_its_own_is_in_usr(kernel: Kernel, tmp_path: Path) -> None:
    """The layout of `make modules_install INSTALL_MOD_PATH=...` and of packages."""
    for layer, name in ((tmp_path / "built", "first"), (buildlayer.root_of(kernel), "second")):
        put(layer, name)
        (layer / "usr/lib").rename(layer / "lib")
        (layer / "sbin").mkdir()
        (layer / "sbin" / name).write_text(name)
    (tmp_path / "built/bin").symlink_to("usr/bin")
    refer(kernel, "built", tmp_path / "built")
    by_hand, joined = obtain(kernel)
    assert by_hand == buildlayer.root_of(kernel)
    assert (joined / "usr/sbin/first").read_text() == "first"
    assert sorted(path.name for path in joined.iterdir()) == ["bin", "usr"]
    index = (joined / "usr/lib/modules" / RELEASE / "modules.dep").read_text()
    assert {"updates/first.ko:", "updates/second.ko:"} <= set(index.split())
    assert buildlayer.has_module(kernel, "first")
    assert buildlayer.has_module(kernel, "second")
    assert buildlayer.module_names(tmp_path / "built") == {"first"}
