"""The folders, symlinks and devices that every guest's root file system has."""

import stat

from quizmatrix.core import skeleton

DEVNAME = """# Device nodes to trigger on-demand module loading.
fuse fuse c10:229
tun net/tun c10:200
vfio vfio/vfio c10:196
odd ../../etc/passwd c1:1
odder /etc/passwd c1:1
none
"""


def listed(archive: bytes) -> list[str]:
    """Modes and names of an archive without files."""
    lines = []
    while archive:
        mode, size = int(archive[14:22], 16), int(archive[94:102], 16)
        lines.append(f"{stat.filemode(mode)} {archive[110 : 110 + size - 1].decode()}")
        archive = archive[(110 + size + 3) // 4 * 4 :]
    return lines


def test_nodes_are_those_that_a_kernel_names() -> None:
    assert listed(skeleton.nodes(DEVNAME)) == [
        "drwxr-xr-x guest/nodes",
        "drwxr-xr-x guest/nodes/net",
        "drwxr-xr-x guest/nodes/vfio",
        "crw-rw-rw- guest/nodes/fuse",
        "crw-rw-rw- guest/nodes/net/tun",
        "crw------- guest/nodes/vfio/vfio",
    ]
    assert skeleton.nodes("") == b""


def test_a_merged_usr() -> None:
    names = ["lib/firmware/x", "/sbin/y", "lib", "library", "usr/lib/z", "etc/lib", "lib64/ld.so"]
    assert [skeleton.guest_path(name) for name in names] == [
        "usr/lib/firmware/x",
        "usr/sbin/y",
        "usr/lib",
        "library",
        "usr/lib/z",
        "etc/lib",
        "usr/lib64/ld.so",
    ]
