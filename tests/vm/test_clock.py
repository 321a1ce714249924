"""A guest's clock runs at the host's speed, idle and busy, with two cells at once."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vm.test_built import CELL as PPC64
from tests.vm.test_built import LIMIT

# The guest prints its clock (proc_uptime(5)), sleeps two seconds, prints it, is busy until two more
# have passed by its clock, and prints it.
SCRIPT = """
now() { read -r uptime _ </proc/uptime; echo "$uptime"; }
hundredths() { read -r uptime _ </proc/uptime; echo "${uptime%.*}${uptime#*.}"; }
now; sleep 2; now
end=$(($(hundredths) + 200)); while [ "$(hundredths)" -lt $end ]; do :; done; now
"""


def clocks(guest: subprocess.Popen[str]) -> Iterator[tuple[float, float]]:
    """The guest's clock and this host's, for every line that the guest prints."""
    assert guest.stdout is not None
    for line in guest.stdout:
        yield float(line), time.monotonic()


@pytest.mark.timeout(LIMIT)
@pytest.mark.parametrize("cell", ["6.1-x86_64", "6.1-s390x", PPC64])
def test_the_clock_of_the_guest_is_the_hosts(cell: str, environment: dict[str, str], tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "quizmatrix", "prepare", "--only", cell], check=True)
    argv = [sys.executable, "-m", "quizmatrix", "run", "--only", cell, "--offline", "--", SCRIPT]

    def boot() -> subprocess.Popen[str]:
        return subprocess.Popen(argv, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, text=True)

    with boot() as measured, boot() as other:
        (began, host_began), (slept, host_slept), (ended, host_ended) = clocks(measured)
        other.communicate()
    assert (measured.returncode, other.returncode) == (0, 0)
    assert slept - began == pytest.approx(host_slept - host_began, rel=0.05)
    assert ended - slept == pytest.approx(host_ended - host_slept, rel=0.05)
