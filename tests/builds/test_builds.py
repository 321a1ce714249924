"""Real builds of kernels from Debian's sources, each booted: `make check-all`, hours on two cores."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from quizmatrix.core import process
from quizmatrix.kernel import build
from quizmatrix.model.arch import load_arch

PROVEN = ("x86_64", "s390x", "ppc64")
# One kernel for each; they are only booted.
OTHERS = ("aarch64", "riscv64", "ppc64le", "loongarch64")

CELLS = [
    *((kernel, arch) for kernel in ("5.10", "6.1", "6.12", "newest", "7.3") for arch in PROVEN),
    *(("6.12", arch) for arch in OTHERS),
]

# Seconds; a build takes two cores up to a quarter of an hour.
LIMIT = 3000


@pytest.mark.timeout(LIMIT)
@pytest.mark.parametrize(("kernel", "arch"), CELLS)
def test_a_kernel_is_built_and_boots(kernel: str, arch: str, tmp_path: Path) -> None:
    facts = load_arch(arch)
    tools = build.tools_for(facts) | {facts.facts.qemu.binary: facts.facts.qemu.package}
    missing = [package for tool, package in tools.items() if process.find_program(tool) is None]
    if missing and arch in OTHERS:
        pytest.skip(f"needs {', '.join(missing)}")
    argv = [sys.executable, "-m", "quizmatrix", "run", "--only", f"debian-source:{kernel}-{arch}", "--"]
    done = subprocess.run(
        [*argv, 'uname -m; printf "\\1\\2" | od -An -tx2; test -c /dev/loop-control'],
        env=dict(os.environ) | {"QUIZMATRIX_STATE_DIR": str(tmp_path)},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    machine, order = done.stdout.decode().split()
    assert machine == arch
    assert order == ("0201" if facts.facts.byte_order == "little" else "0102")
