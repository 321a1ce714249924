"""What every guest's root has, as a part of its initramfs."""

import subprocess
from pathlib import Path

from quizmatrix import cpio, skeleton

DEVNAME = """# Device nodes to trigger on-demand module loading.
fuse fuse c10:229
tun net/tun c10:200
vfio vfio/vfio c10:196
odd ../../etc/passwd c1:1
odder /etc/passwd c1:1
none
"""


def listed(archive: bytes, tmp_path: Path) -> list[str]:
    (tmp_path / "archive").write_bytes(cpio.join([archive]))
    with (tmp_path / "archive").open("rb") as file:
        done = subprocess.run(["cpio", "-tv", "--quiet"], stdin=file, capture_output=True, check=True)
    return [" ".join(line.split()[i] for i in (0, -1)) for line in done.stdout.decode().splitlines()]


def test_nodes_are_those_that_a_kernel_names(tmp_path: Path) -> None:
    assert listed(skeleton.nodes(DEVNAME), tmp_path) == [
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
    assert [skeleton.place_of(name) for name in names] == [
        "usr/lib/firmware/x",
        "usr/sbin/y",
        "usr/lib",
        "library",
        "usr/lib/z",
        "etc/lib",
        "usr/lib64/ld.so",
    ]
