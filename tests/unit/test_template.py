"""Templates of guests: their keys, when they are used, and when they are removed; without VMs."""

from pathlib import Path

import anyio
import pytest

from quizmatrix.core import sparse
from quizmatrix.core.uses import Uses
from quizmatrix.run import qemu, template
from quizmatrix.run.template import TEMPLATES
from tests import made_spec

INTEL = """\
processor\t: 0
vendor_id\t: GenuineIntel
model name\t: Intel(R) Xeon(R) Processor @ 2.30GHz
cpu MHz\t\t: 2299.998
flags\t\t: fpu vme
bogomips\t: 4599.99
"""
ARM = """\
processor\t: 0
BogoMIPS\t: 48.00
Features\t: fp asimd
CPU part\t: 0xd40
"""


@pytest.mark.parametrize(
    ("text", "change", "is_another"),
    [
        (INTEL, ("2299.998", "3100.000"), False),
        (INTEL, ("4599.99", "4600.00"), False),
        (INTEL, ("fpu vme", "fpu"), True),
        (INTEL, ("2.30GHz", "2.40GHz"), True),
        (ARM, ("48.00", "50.00"), False),
        (ARM, ("fp asimd", "fp asimd sve"), True),
        (ARM, ("0xd40", "0xd41"), True),
    ],
)
def test_the_hosts_cpu(
    text: str, change: tuple[str, str], is_another: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for number, said in enumerate((text, text.replace(*change))):
        (tmp_path / str(number)).write_text(said)
        monkeypatch.setattr(template, "_CPUINFO", tmp_path / str(number))
        found.append(template._host_cpu())
    assert (found[0] != found[1]) is is_another


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The key of a stored template."""
    monkeypatch.setenv("QUIZMATRIX_CACHE_DIR", str(tmp_path))
    folder = TEMPLATES.path("x86_64-1")
    folder.mkdir(parents=True)
    for name in (template.MEMORY, template.STATE, template.CONSOLE):
        (folder / name).write_text(name)
    template.complete(folder, "x86_64-1")
    return "x86_64-1"


def test_a_template_of_an_earlier_boot_of_the_host(
    stored: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert template.find(stored) is not None
    (tmp_path / "boot_id").write_text("another\n")
    monkeypatch.setattr(template, "_BOOT_ID", tmp_path / "boot_id")
    assert template.find(stored) is None


def test_a_template_in_use_stays(stored: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(template.BUDGET_VARIABLE, "1M")
    (TEMPLATES.path(stored) / template.MEMORY).write_bytes(bytes(2 << 20))
    uses = Uses()
    assert anyio.run(uses.hold, TEMPLATES.path(stored))
    template.keep_to_budget()
    assert not template.drop(stored)
    assert TEMPLATES.path(stored).exists()
    uses.release()
    template.keep_to_budget()
    assert not TEMPLATES.path(stored).exists()
    assert template.drop(stored)


def test_options_of_qemu_may_be_anything() -> None:
    assert template.why_not(made_spec.spec(version="6.1.9")) == ""
    assert "--qemu" in template.why_not(made_spec.spec(version="6.1.9", qemu_words=["-dtb", "x"]))


def test_what_a_file_system_says_of_holes_does_not_matter(tmp_path: Path) -> None:
    content = bytearray(3 << 20)
    for at in (5, 70_000, 300_000, 2_000_000, (3 << 20) - 1):
        content[at] = 1
    full, holes = tmp_path / "full", tmp_path / "holes"
    full.write_bytes(content)
    with holes.open("wb") as file:
        file.truncate(len(content))
        for at in (5, 70_000, 300_000, 2_000_000, (3 << 20) - 1):
            file.seek(at)
            file.write(b"\x01")
    assert holes.stat().st_blocks < full.stat().st_blocks
    assert sparse.digest_of(full) == sparse.digest_of(holes)


def test_a_qemu_that_can_opens_the_memory_for_reading_alone() -> None:
    options = qemu.Memory(template="/a,b/memory").options(64)
    assert options[1] == "memory-backend-file,id=memory,size=64M,share=off,mem-path=/a,,b/memory"
    # The file is read-only, and the guest's memory is not.
    read_only = qemu.Memory(template="/a,b/memory", is_read_only=True).options(64)
    assert read_only == [options[0], f"{options[1]},readonly=on,rom=off", *options[2:]]
