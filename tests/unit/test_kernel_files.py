"""Kernels from files, without VMs: where distributions have them, what is missing, what does not fit."""

import gzip
import lzma
import struct
import subprocess
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import anyio
import pytest
import zstandard

from quizmatrix.cli import run_command
from quizmatrix.core.errors import DamagedError, QuizmatrixError, UnpreparedError, UsageError
from quizmatrix.kernel import artifact, bootimage, installed, source
from quizmatrix.kernel.artifact import KERNELS
from quizmatrix.kernel.order import KernelOptions, Order
from quizmatrix.model.arch import DiskBus, load_arch
from tests import linkedcache
from tests.packing import REGULAR, SYMLINK, Entry, deb, payload, rpm
from tests.tiny_elf import X86_64 as PROGRAM
from tests.tiny_elf import header

X86_64 = load_arch("x86_64")
RELEASE = "5.14.0-570.el9.x86_64"
BANNER = b"Linux version %s (mock@host) #1 SMP\n"
BUILT_IN = "".join(
    f"CONFIG_{name}=y\n"
    for name in (
        "VIRTIO_PCI",
        "VIRTIO_CONSOLE",
        "9P_FS",
        "NET_9P_VIRTIO",
        "OVERLAY_FS",
        "VIRTIO_BLK",
        "SQUASHFS",
    )
)


def vmlinux(release: str = RELEASE, *, with_pvh: bool = True, config: str = "") -> bytes:
    """An ELF file with what is read of a kernel: its banner, its note for QEMU, its configuration."""
    note = struct.pack("<III", 4, 8, 18) + b"Xen\0" + bytes(8) if with_pvh else b""
    start = 64 + 56
    head = header(62, kind=2)[:64]
    segment = struct.pack("<IIQQQQQQ", 4, 4, start, 0, 0, len(note), len(note), 4)
    kept = b"IKCFG_ST" + gzip.compress(config.encode()) if config else b""
    return head + segment + note + BANNER % release.encode() + kept


def bzimage(kernel: bytes, release: str = RELEASE) -> bytes:
    """A boot image as in arch/x86/boot.rst."""
    packed = zstandard.ZstdCompressor().compress(kernel) + struct.pack("<I", len(kernel))
    head = bytearray(1024)
    head[0x1F1], head[0x202:0x206] = 1, b"HdrS"
    struct.pack_into("<H", head, 0x20E, 0x300 - 0x200)
    head[0x300 : 0x300 + len(release) + 6] = release.encode() + b" (x) \0"
    struct.pack_into("<II", head, 0x248, 0, len(packed))
    return bytes(head) + packed


def module(name: str, cross: str = "") -> bytes:
    """A module that depmod(8) can read."""
    text = f'char i[] __attribute__((section(".modinfo"))) = "name={name}";'
    with tempfile.TemporaryDirectory() as folder:
        argv = [f"{cross}gcc", "-c", "-x", "c", "-", "-o", f"{folder}/m.ko"]
        subprocess.run(argv, input=text.encode(), check=True)
        return Path(folder, "m.ko").read_bytes()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("QUIZMATRIX_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def obtain(
    text: str, *, arch: str = "x86_64", needs_tree: bool = False, variant: str | None = None
) -> artifact.Kernel:
    order = Order(
        arch=load_arch(arch),
        tell=lambda _: None,
        needs_tree=needs_tree,
        options=KernelOptions(variant=variant),
    )
    return anyio.run(partial(source.obtain, text, order, offline=True))


def place(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def entries(files: dict[str, bytes]) -> list[Entry]:
    return [(f"./{name}", REGULAR, content) for name, content in files.items()]


KERNEL = {
    "boot/vmlinuz-6.8.0-45-generic": bzimage(vmlinux("6.8.0-45-generic"), "6.8.0-45-generic"),
    "boot/config-6.8.0-45-generic": BUILT_IN.encode(),
}
CORE = {
    f"lib/modules/{RELEASE}/vmlinuz": bzimage(vmlinux()),
    f"lib/modules/{RELEASE}/config": BUILT_IN.encode(),
    f"lib/modules/{RELEASE}/System.map": b"0000 T _text\n",
    f"lib/modules/{RELEASE}/modules.builtin": b"kernel/fs/9p/9p.ko\n",
}


def test_the_layout_of_ubuntu(tmp_path: Path) -> None:
    deb(
        tmp_path / "image.deb",
        entries({"boot/vmlinuz-6.8.0-45-generic": KERNEL["boot/vmlinuz-6.8.0-45-generic"]}),
    )
    name = "lib/modules/6.8.0-45-generic/kernel/one.ko.zst"
    modules = {
        "boot/config-6.8.0-45-generic": BUILT_IN.encode(),
        name: zstandard.ZstdCompressor().compress(module("one")),
    }
    deb(tmp_path / "modules.deb", entries(modules))
    kernel = obtain(f"package:{tmp_path}")
    assert (kernel.record.release, kernel.record.version) == ("6.8.0-45-generic", "6.8.0")
    assert kernel.record.packages == ["image.deb", "modules.deb"]
    assert kernel.image.read_bytes() == vmlinux("6.8.0-45-generic")
    assert "kernel/one.ko:" in (kernel.modules / "modules.dep").read_text()
    assert kernel.has_9p
    assert obtain(f"package:{tmp_path}").record.key == kernel.record.key
    (tmp_path / "modules.deb").unlink()
    with pytest.raises(UnpreparedError, match=r"configuration of the kernel .* is missing"):
        obtain(f"package:{tmp_path}")


def test_the_layout_of_fedora(tmp_path: Path) -> None:
    rpm(tmp_path / "kernel-core.rpm", payload(entries(CORE)))
    more = {f"lib/modules/{RELEASE}/kernel/one.ko.xz": lzma.compress(module("one"))}
    links = [(f"./lib/modules/{RELEASE}/build", SYMLINK, f"/usr/src/kernels/{RELEASE}".encode())]
    rpm(tmp_path / "kernel-modules.rpm", payload([*entries(more), *links]))
    kernel = obtain(f"package:{tmp_path}")
    names = {str(path.relative_to(kernel.modules)) for path in kernel.modules.rglob("*") if path.is_file()}
    assert {"kernel/one.ko.xz", "modules.builtin", "modules.dep"} <= names
    assert not {"vmlinuz", "config", "System.map", "build"} & names
    assert (kernel.folder / "System.map").read_bytes() == b"0000 T _text\n"


def test_the_layout_of_opensuse(tmp_path: Path) -> None:
    """One package; the image of /boot is a link, and the module folder has a vmlinux for debuggers, too."""
    files = {name.replace("lib/", "usr/lib/", 1): content for name, content in CORE.items()}
    files[f"usr/lib/modules/{RELEASE}/vmlinux.xz"] = lzma.compress(b"\x7fELF for kdump")
    link = [(f"./boot/vmlinuz-{RELEASE}", SYMLINK, f"../usr/lib/modules/{RELEASE}/vmlinuz".encode())]
    rpm(tmp_path / "kernel-default.rpm", payload([*entries(files), *link]))
    assert obtain(f"package:{tmp_path}/kernel-default.rpm").image.read_bytes() == vmlinux()


def test_a_folder_of_the_users(tmp_path: Path) -> None:
    root = place(tmp_path / "mine", {"vmlinuz": bzimage(vmlinux(config=BUILT_IN))})
    kernel = obtain(f"files:{root}")
    assert (kernel.record.release, kernel.config) == (RELEASE, BUILT_IN)
    place(root, {f"lib/modules/{RELEASE}/kernel/new.ko": module("new")})
    other = obtain(f"files:{root}")
    assert other.record.key != kernel.record.key
    assert "new.ko" in (other.modules / "modules.dep").read_text()


def test_a_folder_of_links(tmp_path: Path) -> None:
    """What is behind a link may change while the folder does not."""
    image, root = tmp_path / "bzImage", tmp_path / "mine"
    root.mkdir()
    image.write_bytes(bzimage(vmlinux(config=BUILT_IN)))
    (root / "vmlinuz").symlink_to(image)
    kernel = obtain(f"files:{root}")
    image.write_bytes(bzimage(vmlinux(config=f"{BUILT_IN}CONFIG_OTHER=y\n")))
    assert obtain(f"files:{root}").record.key != kernel.record.key


@pytest.mark.parametrize("name", [f"vmlinuz-{RELEASE}.old", f"vmlinux-{RELEASE}.gz"])
def test_what_else_may_be_beside_an_image(name: str, tmp_path: Path) -> None:
    content = bzimage(vmlinux(config=BUILT_IN))
    files = {f"boot/vmlinuz-{RELEASE}": content, f"boot/{name}": content}
    root = place(tmp_path / "mine", {**files, f"lib/modules/{RELEASE}/kernel/a.ko": module("a")})
    assert obtain(f"files:{root}").record.release == RELEASE


def test_this_machine(tmp_path: Path) -> None:
    """The running kernel where it is installed, else the newest; with the headers that are installed."""
    root = tmp_path / "root"
    with pytest.raises(ValueError, match="no kernel"):
        installed.source_in(root).check("")
    for release in ("6.1.0-9-amd64", "6.1.0-21-amd64"):
        files = {
            f"boot/vmlinuz-{release}": bzimage(vmlinux(release), release),
            f"boot/config-{release}": BUILT_IN.encode(),
            f"lib/modules/{release}/kernel/a.ko": module("a"),
            f"usr/src/linux-headers-{release}/include/generated/utsrelease.h": (
                f'#define UTS_RELEASE "{release}"\n'.encode()
            ),
            f"usr/src/linux-headers-{release}/Makefile": b"include /usr/src/linux-headers-common/Makefile\n",
        }
        place(root, files)
    place(root, {"usr/src/linux-headers-common/Makefile": b""})
    own = installed.source_in(root)
    assert own.check("") == "6.1.0-21-amd64"
    with pytest.raises(ValueError, match=r"this machine has 6.1.0-21-amd64, 6.1.0-9-amd64"):
        own.check("5.10")
    order = Order(arch=X86_64, tell=lambda _: None, needs_tree=True)
    kernel = artifact.load(anyio.run(own.fetch, "6.1.0-9-amd64", order))
    assert kernel is not None
    assert kernel.build_tree is not None
    assert (kernel.build_tree.folder / "include/generated").samefile(
        root / "usr/src/linux-headers-6.1.0-9-amd64/include/generated"
    )
    assert kernel.build_tree.source == root / "usr/src/linux-headers-common"
    with pytest.raises(UnpreparedError, match="not for s390x"):
        anyio.run(own.fetch, "6.1.0-9-amd64", Order(arch=load_arch("s390x"), tell=lambda _: None))


def refused(
    tmp_path: Path, files: dict[str, bytes], *, arch: str = "x86_64", variant: str | None = None
) -> str:
    """The error for a folder with these files; nothing of the kernel is left in the cache."""
    with pytest.raises(QuizmatrixError) as caught:
        obtain(f"files:{place(tmp_path / 'bad', files)}", arch=arch, variant=variant)
    assert not [path for path in KERNELS.root.glob("*") if path.name != "refs"]
    return caught.value.render()


@pytest.mark.parametrize("gone", ["CONFIG_OVERLAY_FS=y\n", "CONFIG_VIRTIO_CONSOLE=y\n"])
def test_a_kernel_that_cannot_reach_its_root(gone: str, tmp_path: Path) -> None:
    files = CORE | {f"lib/modules/{RELEASE}/config": BUILT_IN.replace(gone, "").encode()}
    assert f"it lacks {gone[:-3]}" in refused(tmp_path, files)


def test_a_kernel_without_its_modules(tmp_path: Path) -> None:
    config = BUILT_IN.replace("OVERLAY_FS=y", "OVERLAY_FS=m").replace("VIRTIO_PCI=y", "VIRTIO_PCI=m")
    said = refused(tmp_path, CORE | {f"lib/modules/{RELEASE}/config": config.encode()})
    assert "without modules that a guest needs: virtio_pci, overlay" in said
    assert "kernel-modules-core" in said


def test_a_kernel_without_9p_needs_disks(tmp_path: Path) -> None:
    config = BUILT_IN.replace("CONFIG_9P_FS=y\n", "").replace("SQUASHFS=y", "SQUASHFS=m")
    files = CORE | {f"lib/modules/{RELEASE}/config": config.encode()}
    assert "needs: squashfs" in refused(tmp_path, files)
    config = BUILT_IN.replace("CONFIG_9P_FS=y\n", "").replace("VIRTIO_BLK", "SCSI_VIRTIO")
    assert "CONFIG_VIRTIO_BLK" in refused(tmp_path, CORE | {f"lib/modules/{RELEASE}/config": config.encode()})
    config += "CONFIG_BLK_DEV_SD=y\n"
    place(tmp_path / "bad", {f"lib/modules/{RELEASE}/config": config.encode()})
    kernel = obtain(f"files:{tmp_path}/bad")
    assert (kernel.has_9p, kernel.layer_bus) == (False, DiskBus.SCSI)


def test_modules_of_9p_that_are_not_there(tmp_path: Path) -> None:
    """Ubuntu has some in linux-modules-extra: without that package the guest gets disks."""
    config = BUILT_IN.replace("9P_FS=y", "9P_FS=m")
    place(tmp_path / "f", CORE | {f"lib/modules/{RELEASE}/config": config.encode()})
    kernel = obtain(f"files:{tmp_path}/f")
    assert (kernel.has_9p, kernel.layer_bus) == (False, DiskBus.VIRTIO)


def test_another_architecture(tmp_path: Path) -> None:
    """Named are both, whether a module tells it or the image."""
    name = f"lib/modules/{RELEASE}/kernel/one.ko"
    said = refused(tmp_path, CORE | {name: module("one", "s390x-linux-gnu-")})
    assert "the module one.ko is for s390x, and the cell for x86_64" in said
    image = {f"boot/vmlinuz-{RELEASE}": header(183), f"lib/modules/{RELEASE}/config": BUILT_IN.encode()}
    assert "is for aarch64, and the cell for x86_64" in refused(tmp_path / "2", image)
    said = refused(
        tmp_path / "3", {f"lib/modules/{RELEASE}/kernel/one.ko": module("one"), **CORE}, arch="s390x"
    )
    assert "is for x86_64, and the cell for s390x" in said


@pytest.mark.parametrize("name", ["a\nvirtio_pci.ko: /etc/hostname \n.ko", "a b.ko", "a:.ko", "\u2028.ko"])
def test_modules_whose_names_would_be_more_in_an_index(name: str, tmp_path: Path) -> None:
    """depmod(8) writes them to modules.dep as they are; a guest's initramfs has the files that this names."""
    files = CORE | {f"lib/modules/{RELEASE}/kernel/{name}": module("a")}
    assert f"one is called {f'kernel/{name}'!r}" in refused(tmp_path, files)


@pytest.mark.parametrize("image", [b"MZ\0\0zimg", b"MZ\0\0zimg" + bytes(3), bytes(0x202) + b"HdrS"])
def test_images_that_are_cut_short(image: bytes, tmp_path: Path) -> None:
    assert "kernel" in refused(tmp_path, CORE | {f"lib/modules/{RELEASE}/vmlinuz": image})


def test_notes_without_end() -> None:
    """Segments that lie over each other, full of empty notes."""
    size = 1 << 26
    segment = struct.pack("<IIQQQQQQ", 4, 4, 8192, 0, 0, size, size, 4)
    head = bytearray(header(62, kind=2)[:64])
    struct.pack_into("<H", head, 56, 100)
    kernel = (bytes(head) + segment * 100).ljust(8192 + size, b"\0")
    assert not bootimage.has_pvh_entry(kernel)


def headers_in(folder: str, makefile: bytes) -> dict[str, bytes]:
    return {
        f"{folder}/Makefile": makefile,
        f"{folder}/include/generated/utsrelease.h": f'#define UTS_RELEASE "{RELEASE}"\n'.encode(),
        f"{folder}/scripts/basic/fixdep": PROGRAM,
    }


def test_headers_with_a_hostile_makefile(tmp_path: Path) -> None:
    package = f"package:{tmp_path}/kernel.rpm"
    for makefile in (
        b"include /../../../../../etc/Makefile\n",
        b"include ../../../../../../../../x/Makefile\n",
    ):
        more = headers_in(f"usr/src/kernels/{RELEASE}", makefile)
        rpm(tmp_path / "kernel.rpm", payload(entries(CORE | more)))
        with pytest.raises(DamagedError, match="headers are not whole"):
            obtain(package, needs_tree=True)
    more = headers_in(f"usr/src/kernels/{RELEASE}", b"# \xff\n")
    rpm(tmp_path / "kernel.rpm", payload(entries(CORE | more)))
    assert obtain(package, needs_tree=True).build_tree is not None


def test_links_that_lead_out_once_headers_are_moved(tmp_path: Path) -> None:
    """Where the headers were in the package, the link stayed in it."""
    more = headers_in("opt/a/b/c/d/e/headers", b"")
    links = [
        ("./usr/src", SYMLINK, b"../opt/a/b/c/d/e"),
        ("./opt/a/b/c/d/e/headers/tools", SYMLINK, b"../../../../../../../outside"),
    ]
    rpm(tmp_path / "kernel.rpm", payload([*entries(CORE | more), *links]))
    with pytest.raises(DamagedError, match="tools leads out of its package"):
        obtain(f"package:{tmp_path}/kernel.rpm", needs_tree=True)


def test_headers_in_a_cache_on_another_disk(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The link to the headers is followed: they are found by another path than the package's."""
    (tmp_path / "disk").mkdir()
    cache.symlink_to(tmp_path / "disk")
    headers = f"usr/src/kernels/{RELEASE}"
    more = headers_in(headers, b"")
    link = [(f"./lib/modules/{RELEASE}/build", SYMLINK, f"/{headers}".encode())]
    rpm(tmp_path / "kernel.rpm", payload([*entries(CORE | more), *link]))
    tree = obtain(f"package:{tmp_path}/kernel.rpm", needs_tree=True).build_tree
    assert tree is not None
    assert (tree.folder / "Makefile").is_file()


def test_a_build_tree_holds_however_the_cache_is_reached(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cache of links to another one: what is stored there must not name the links."""
    top = f"usr/src/kernels/{RELEASE}"
    files = {
        f"{top}/include/generated/utsrelease.h": f'#define UTS_RELEASE "{RELEASE}"\n'.encode(),
        f"{top}/scripts/basic/fixdep": PROGRAM,
        f"{top}/Makefile": b"include /usr/src/common/Makefile\n",
        "usr/src/common/Makefile": b"all:\n",
    }
    rpm(tmp_path / "kernel.rpm", payload(entries(CORE | files)))
    for name in ("kernels", "trees"):
        (cache / name).mkdir(parents=True)
    linked = linkedcache.make(cache, tmp_path / "linked", without=())
    monkeypatch.setenv("QUIZMATRIX_CACHE_DIR", str(linked))
    assert obtain(f"package:{tmp_path}/kernel.rpm", needs_tree=True).build_tree is not None
    monkeypatch.setenv("QUIZMATRIX_CACHE_DIR", str(cache))
    tree = obtain(f"package:{tmp_path}/kernel.rpm", needs_tree=True).build_tree
    assert tree is not None
    assert tree.folder.is_relative_to(cache)
    assert bytes(cache) in (tree.folder / "Makefile").read_bytes()


def test_headers_in_a_folder_are_used_there(tmp_path: Path) -> None:
    """Their Makefile names /usr/src, which is this host's: in the cache is one that names the folder's."""
    top = f"usr/src/headers-{RELEASE}"
    include = b"include /usr/src/common/Makefile\n"
    files = {
        f"{top}/include/generated/utsrelease.h": f'#define UTS_RELEASE "{RELEASE}"\n'.encode(),
        f"{top}/Makefile": include,
        "usr/src/common/Makefile": b"all:\n",
    }
    root = place(tmp_path / "root", CORE | files)
    tree = obtain(f"files:{root}", needs_tree=True).build_tree
    assert tree is not None
    assert (tree.folder / "Makefile").read_bytes() == b"include %s/usr/src/common/Makefile\n" % bytes(root)
    assert (tree.folder / "include/generated/utsrelease.h").is_file()
    assert tree.source == root / "usr/src/common"
    assert (root / top / "Makefile").read_bytes() == include


def test_an_image_of_another_release(tmp_path: Path) -> None:
    said = refused(tmp_path, CORE | {f"lib/modules/{RELEASE}/vmlinuz": bzimage(vmlinux(), "5.14.0-1")})
    assert "it says that it is 5.14.0-1" in said


def test_headers_of_another_release(tmp_path: Path) -> None:
    name = "usr/src/kernels/5.14.0-1/include/generated/utsrelease.h"
    said = refused(tmp_path, CORE | {name: b'#define UTS_RELEASE "5.14.0-1"\n'})
    assert f"they are of 5.14.0-1, and the kernel is {RELEASE}" in said


def test_a_damaged_module(tmp_path: Path) -> None:
    name = f"lib/modules/{RELEASE}/kernel/one.ko.xz"
    cut = CORE | {name: lzma.compress(module("one"))[:-30]}
    assert "one.ko.xz is damaged: it is cut short" in refused(tmp_path, cut)
    other = {name: lzma.compress(b"text")}
    assert "one.ko.xz is damaged: it is no ELF file" in refused(tmp_path / "2", CORE | other)


def test_several_kernels_and_none(tmp_path: Path) -> None:
    both = {"boot/vmlinuz-6.1.1": b"x", "boot/vmlinuz-6.1.2": b"x"}
    assert "several kernels in" in refused(tmp_path, both)
    modules = {"lib/modules/6.1.1/kernel/a.ko": b"x"}
    assert "there are only modules of 6.1.1" in refused(tmp_path / "2", modules)
    with pytest.raises(UsageError, match=r"no .deb or .rpm file"):
        source.parse_spec(f"package:{tmp_path}")
    with pytest.raises(UsageError, match="there is no folder"):
        source.parse_spec(f"files:{tmp_path}/none")


def test_options_need_a_kernel_that_is_built(tmp_path: Path) -> None:
    assert "with kasan has to be built" in refused(tmp_path, CORE, variant="kasan")


def test_the_headers_are_asked_for_where_they_are_needed(tmp_path: Path) -> None:
    rpm(tmp_path / "kernel-core.rpm", payload(entries(CORE)))
    assert run_command(["kernel", "build", f"package:{tmp_path}", "-a", "x86_64"]) == 0
    with pytest.raises(UnpreparedError, match="no headers") as caught:
        obtain(f"package:{tmp_path}", needs_tree=True)
    assert "kernel-devel" in caught.value.next_step
    top = f"usr/src/kernels/{RELEASE}"
    files = {
        f"{top}/include/generated/utsrelease.h": f'#define UTS_RELEASE "{RELEASE}"\n'.encode(),
        f"{top}/Makefile": b"include $(srctree)/Makefile\ninclude /usr/src/source/Makefile\n",
        "usr/src/source/Makefile": b"all:\n",
    }
    rpm(tmp_path / "kernel-devel.rpm", payload(entries(files)))
    with pytest.raises(UnpreparedError, match="are not among them; --offline"):
        obtain(f"package:{tmp_path}", needs_tree=True)
    foreign = {f"{top}/scripts/basic/fixdep": header(22, byte_order="big")}
    rpm(tmp_path / "kernel-devel.rpm", payload(entries(files | foreign)))
    with pytest.raises(UnpreparedError, match="are for s390x"):
        obtain(f"package:{tmp_path}", needs_tree=True)
    rpm(tmp_path / "kernel-devel.rpm", payload(entries(files | {f"{top}/scripts/basic/fixdep": PROGRAM})))
    tree = obtain(f"package:{tmp_path}", needs_tree=True).build_tree
    assert tree is not None
    assert tree.variables["ARCH"] == "x86_64"
    assert (tree.source / "Makefile").read_bytes() == b"all:\n"
    assert (
        tree.folder / "Makefile"
    ).read_text() == f"include $(srctree)/Makefile\ninclude {tree.source}/Makefile\n"
    (tree.used[0] / "tree.json").write_bytes(b"damaged")
    assert obtain(f"package:{tmp_path}", needs_tree=True).build_tree == tree


ZBOOT = struct.pack("<2s2x4sII", b"MZ", b"zimg", 64, 100_000)


@pytest.mark.parametrize(
    "pack",
    [
        gzip.compress,
        lzma.compress,
        lambda data: zstandard.ZstdCompressor().compress(data),
        lambda data: ZBOOT.ljust(64, b"\0") + gzip.compress(data),
        lambda data: gzip.compress(ZBOOT.ljust(64, b"\0") + zstandard.ZstdCompressor().compress(data)),
    ],
    ids=["gzip", "xz", "zstd", "zboot", "zboot in gzip"],
)
def test_formats_of_images(pack: Callable[[bytes], bytes]) -> None:
    """As for ARM (Image), whose format is none of ours; for x86 a vmlinux comes out."""
    image = b"MZ\0\0" + bytes(52) + b"ARM\x64" + BANNER % b"6.8.0"
    found = bootimage.boot_file(pack(image), wants_vmlinux=False)
    assert found == image
    assert bootimage.release_of(found) == "6.8.0"
    assert bootimage.boot_file(pack(vmlinux()), wants_vmlinux=True) == vmlinux()


def test_a_kernel_that_qemu_cannot_enter_stays_a_boot_image() -> None:
    image = bzimage(vmlinux(with_pvh=False))
    assert bootimage.boot_file(image, wants_vmlinux=True) == image
    assert bootimage.boot_file(bzimage(vmlinux()), wants_vmlinux=True) == vmlinux()
    assert bootimage.release_of(image) == RELEASE


def test_an_image_that_is_a_bomb() -> None:
    bomb = gzip.compress(bytes(1 << 20), 9)
    assert len(bootimage.boot_file(bomb, wants_vmlinux=False)) == 1 << 20
    with pytest.raises(QuizmatrixError, match="more than 1024 MiB"):
        bootimage.boot_file(zeros_of(5 << 28), wants_vmlinux=False)


def zeros_of(size: int) -> bytes:
    """Zstd's blocks that repeat one byte: three bytes of header and the byte, for 128 KiB each (RFC 8878)."""
    frame = b"\x28\xb5\x2f\xfd\x00\x58"
    block = struct.pack("<I", (1 << 17) << 3 | 1 << 1)[:3] + b"\0"
    return frame + block * (size >> 17)
