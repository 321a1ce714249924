"""Debian's own kernels, packed as other distributions pack theirs, are booted from those packages."""

import lzma
import re
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest
import zstandard

from quizmatrix.core import elf
from quizmatrix.kernel import source
from quizmatrix.kernel.artifact import KERNELS, Kernel
from quizmatrix.kernel.modules import loading_order
from quizmatrix.kernel.order import Order
from quizmatrix.model.arch import load_arch
from tests.tiny_elf import header
from tests.vm.conftest import KERNEL, LIMIT, Quizmatrix

# The modules that the packages have: what guests need, and one that the tests load.
VIRTIO = ("virtio_pci", "virtio_console", "overlay")
NINE_P = ("9p", "9pnet_virtio")
DISKS = ("virtio_blk", "virtio_scsi", "sd_mod", "squashfs")
ONE_MORE = "dm_mod"

# Packed fast: the time is better spent on booting.
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    ".xz": lambda data: lzma.compress(data, preset=0, check=lzma.CHECK_CRC32),
    ".zst": lambda data: zstandard.ZstdCompressor(level=1).compress(data),
}


def kernel_of(arch: str) -> Kernel:
    """Debian's kernel, which the fixture `artifacts` has fetched."""
    kernel = source.find(KERNEL, load_arch(arch))
    assert kernel is not None
    return kernel


def boot_file(kernel: Kernel) -> bytes:
    """The kernel as distributions ship it: for x86 in a boot image (arch/x86/boot.rst)."""
    image = kernel.image.read_bytes()
    if not image.startswith(b"\x7fELF"):
        return image
    packed = zstandard.ZstdCompressor(level=1).compress(image) + struct.pack("<I", len(image))
    head = bytearray(1024)
    head[0x1F1], head[0x202:0x206] = 1, b"HdrS"
    release = kernel.record.release.encode()
    struct.pack_into("<H", head, 0x20E, 0x100)
    head[0x300 : 0x300 + len(release) + 1] = release + b"\0"
    struct.pack_into("<II", head, 0x248, 0, len(packed))
    return bytes(head) + packed


def put(root: Path, name: str, content: bytes) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_bytes(content)


def put_modules(kernel: Kernel, root: Path, names: tuple[str, ...], suffix: str) -> None:
    order = loading_order((kernel.modules / "modules.dep").read_text(), list(names))
    for path in order:
        data = (kernel.modules / path).read_bytes()
        put(root, f"lib/modules/{kernel.record.release}/{path}{suffix}", PACKERS[suffix](data))


def without(config: str, *names: str) -> bytes:
    """A configuration without these options, as another distribution's."""
    for name in names:
        config = re.sub(rf"^CONFIG_{name}=.*$", f"# CONFIG_{name} is not set", config, flags=re.MULTILINE)
    return config.encode()


RPM = """
%global _binary_payload w1.zstdio
%global debug_package %{{nil}}
%global __os_install_post %{{nil}}
Name: kernel
Version: 6.1
Release: 1
Summary: a kernel
License: GPL-2.0
AutoReqProv: no
%description
%install
mkdir -p %{{buildroot}}; cp -a {top}/*/. %{{buildroot}}
"""


def rpms(top: Path, arch: str, into: Path) -> None:
    """Build one package of each folder in `top`, with its name."""
    spec = RPM.format(top=top)
    for root in sorted(top.iterdir()):
        # Thousands of headers are named by their folder.
        found = (path.relative_to(root) for path in sorted(root.rglob("*")) if path.is_file())
        files = dict.fromkeys("/usr/src/kernels" if path.parts[0] == "usr" else f"/{path}" for path in found)
        spec += f"%package -n {root.name}\nSummary: a part\nAutoReqProv: no\n%description -n {root.name}\n"
        spec += f"%files -n {root.name}\n" + "\n".join(files) + "\n"
    put(top.parent, "kernel.spec", spec.encode())
    argv = [
        "rpmbuild",
        "-bb",
        "--quiet",
        "--target",
        f"{arch}-linux",
        "--define",
        f"_topdir {top.parent}/work",
    ]
    subprocess.run([*argv, "--define", f"_rpmdir {into}", str(top.parent / "kernel.spec")], check=True)
    for made in into.glob("*/*.rpm"):
        made.rename(into / made.name)


def red_hat(
    arch: str, folder: Path, *, has_9p: bool, has_virtio_blk: bool = True, has_headers: bool = False
) -> Path:
    """A folder of kernel-core, kernel-modules-core and kernel-modules, and kernel-devel."""
    kernel = kernel_of(arch)
    beside = f"lib/modules/{kernel.record.release}"
    gone = ([] if has_9p else ["9P_FS", "NET_9P", "NET_9P_VIRTIO"]) + (
        [] if has_virtio_blk else ["VIRTIO_BLK"]
    )
    core, more, rest = (
        folder / "roots" / name for name in ("kernel-core", "kernel-modules-core", "kernel-modules")
    )
    put(core, f"{beside}/vmlinuz", boot_file(kernel))
    put(core, f"{beside}/config", without(kernel.config, *gone))
    put(core, f"{beside}/System.map", (kernel.folder / "System.map").read_bytes())
    for name in ("modules.builtin", "modules.builtin.modinfo", "modules.order"):
        put(core, f"{beside}/{name}", (kernel.modules / name).read_bytes())
    disks = DISKS if has_virtio_blk else DISKS[1:]
    put_modules(kernel, more, (*VIRTIO, *(NINE_P if has_9p else ())), ".xz")
    put_modules(kernel, rest, (*disks, ONE_MORE), ".xz")
    if has_headers:
        put_headers(with_tree(arch), folder / "roots/kernel-devel")
    (folder / "packages").mkdir()
    rpms(folder / "roots", arch, folder / "packages")
    return folder / "packages"


def put_headers(kernel: Kernel, root: Path) -> None:
    """Lay Debian's headers out as kernel-devel has them: all in one folder."""
    tree = kernel.build_tree
    assert tree is not None
    release = kernel.record.release
    folder = root / f"usr/src/kernels/{release}"
    shutil.copytree(tree.source, folder, ignore=shutil.ignore_patterns("scripts", "tools"))
    own = shutil.ignore_patterns("scripts", "tools", "Makefile")
    shutil.copytree(tree.folder, folder, ignore=own, dirs_exist_ok=True)
    for name in ("scripts", "tools"):
        shutil.copytree((tree.folder / name).resolve(), folder / name, symlinks=True)
    # As a package for another architecture has them.
    for path in programs_of(folder) if not load_arch(kernel.record.arch).is_native else ():
        path.unlink()
        path.write_bytes(header(22, byte_order="big"))
    # Debian's says 6.1.192, and its Makefile the release.
    (folder / "include/config/kernel.release").write_text(f"{release}\n")


def programs_of(folder: Path) -> list[Path]:
    return [path for path in (folder / "scripts").rglob("*") if elf.machine_of(path) is not None]


def with_tree(arch: str) -> Kernel:
    """Debian's kernel, with its headers."""
    order = Order(arch=load_arch(arch), tell=print, needs_tree=True)
    return anyio.run(source.obtain, KERNEL, order)


HELLO = """
#include <linux/module.h>
static int __init hello_init(void) { return 0; }
module_init(hello_init);
MODULE_LICENSE("GPL");
"""


def ubuntu(arch: str, folder: Path) -> Path:
    """A folder of linux-image-unsigned and linux-modules."""
    kernel = kernel_of(arch)
    release = kernel.record.release
    image, modules = (folder / f"{name}-{release}" for name in ("linux-image-unsigned", "linux-modules"))
    put(image, f"boot/vmlinuz-{release}", boot_file(kernel))
    put(modules, f"boot/config-{release}", kernel.config.encode())
    put(modules, f"boot/System.map-{release}", (kernel.folder / "System.map").read_bytes())
    put_modules(kernel, modules, (*VIRTIO, *NINE_P, ONE_MORE), ".zst")
    (folder / "packages").mkdir()
    for root in (image, modules):
        control = (
            f"Package: {root.name}\nVersion: 1\nArchitecture: all\nMaintainer: x <x@x>\nDescription: x\n"
        )
        put(root, "DEBIAN/control", control.encode())
        argv = [
            "dpkg-deb",
            "--root-owner-group",
            "-Zzstd",
            "-z1",
            "--build",
            str(root),
            str(folder / "packages"),
        ]
        subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
    return folder / "packages"


def forget(cells: list[str]) -> None:
    """Remove the kernels from the user's cache."""
    for cell in cells:
        spec, _, arch = cell.rpartition("-")
        kernel = source.find(spec, load_arch(arch))
        if kernel is not None:
            KERNELS.remove(kernel.record.key)


SCRIPT = f"""
    uname -r
    modprobe {ONE_MORE} && grep -q ^{ONE_MORE} /proc/modules || exit 9
    cat typed; echo kept >/shared/file
    cat /proc/mounts | grep -q ' 9p ' && echo folders || echo disks
    ls /sys/block | grep -c ^sd
    modprobe hello 2>/dev/null && sed -n 's/^hello .*/hello/p' /proc/modules
    exit 0
"""


# It packs and boots four kernels.
@pytest.mark.timeout(3 * LIMIT)
def test_kernels_of_other_distributions(quizmatrix: Quizmatrix, tmp_path: Path) -> None:
    """Fedora's layout, with 9p; RHEL's, without, and here without virtio-blk, too; Ubuntu's .deb files."""
    (tmp_path / "here/typed").write_text("beside it\n")
    fedora = red_hat("x86_64", tmp_path / "fedora", has_9p=True, has_headers=True)
    el = red_hat("s390x", tmp_path / "el", has_9p=False, has_headers=True)
    scsi = red_hat("x86_64", tmp_path / "scsi", has_9p=False, has_virtio_blk=False)
    cells = {
        f"package:{fedora}-x86_64": "folders",
        f"package:{el}-s390x": "disks",
        f"package:{scsi}-x86_64": "disks",
        f"package:{ubuntu('s390x', tmp_path / 'ubuntu')}-s390x": "folders",
    }
    put(tmp_path, "hello/hello.c", HELLO.encode())
    put(tmp_path, "hello/Kbuild", b"obj-m := hello.o")
    both = ["--only", f"package:{fedora}-x86_64", "--only", f"package:{el}-s390x"]
    done = quizmatrix("module", "build", str(tmp_path / "hello"), *both)
    assert done.returncode == 0, done.stderr.decode()
    run = tmp_path / "run"
    only = [word for cell in cells for word in ("--only", cell)]
    done = quizmatrix("run", *only, "--output", str(run), "--", SCRIPT)
    forget([*cells])
    assert done.returncode == 0, done.stderr.decode()
    for cell, kind in cells.items():
        folder = run / re.sub(r"[^\w.+@-]", "_", cell)
        arch = cell.rpartition("-")[2]
        said = (folder / "stdout").read_text().split("\n")
        on_scsi = "scsi" in cell
        assert said[:3] == [kernel_of(arch).record.release, "beside it", kind], cell
        assert (int(said[3]) > 0) == on_scsi, cell
        assert ("hello" in said) == (cell in both), cell
        assert (folder / "artifacts/file").read_text() == "kept\n"


def test_what_is_missing_is_named(quizmatrix: Quizmatrix, tmp_path: Path) -> None:
    """A kernel of RHEL without kernel-modules, whose packages are for another architecture at that."""
    folder = red_hat("s390x", tmp_path / "el", has_9p=False)
    done = quizmatrix("run", "--only", f"package:{folder}-x86_64", "--", "true")
    assert done.returncode == 125
    assert "is for s390x, and the cell for x86_64" in done.stderr.decode()
    for path in folder.glob("kernel-modules-6*"):
        path.unlink()
    done = quizmatrix("run", "--only", f"package:{folder}-s390x", "--", "true")
    assert done.returncode == 125
    assert "without modules that a guest needs: squashfs, virtio_blk" in done.stderr.decode()
