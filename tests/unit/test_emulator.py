"""What the version of QEMU means for a guest; without QEMU."""

from pathlib import Path

import pytest

from quizmatrix.model.arch import Accelerator, load_arch
from quizmatrix.run import emulator


@pytest.mark.parametrize(
    ("said", "version", "is_one_thread"),
    [
        ("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)", "7.2.22", True),
        ("QEMU emulator version 8.0.5", "8.0.5", True),
        ("QEMU emulator version 8.1.0-rc2 (v8.1.0-rc2)", "8.1.0-rc2", False),
        ("QEMU emulator version 10.0.13 (Debian 1:10.0.13+ds-0+deb13u1)", "10.0.13", False),
        ("what?", None, False),
    ],
)
def test_the_cpus_of_an_old_qemu_share_a_thread(
    said: str, version: str | None, is_one_thread: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "qemu-system-x86_64"
    program.write_text(f"#!/bin/sh\necho '{said}'\n")
    program.chmod(0o755)
    assert emulator.version_of(str(program)) == version
    monkeypatch.setattr(emulator, "version_of", lambda _binary: version)
    arch = load_arch("x86_64")
    assert emulator.is_one_thread(arch, Accelerator.TCG, 2) is is_one_thread
    assert not emulator.is_one_thread(arch, Accelerator.TCG, 1)
    assert not emulator.is_one_thread(arch, Accelerator.KVM, 2)
    assert not emulator.is_one_thread(load_arch("s390x"), Accelerator.TCG, 2)


def test_no_qemu_no_version(tmp_path: Path) -> None:
    assert emulator.version_of(str(tmp_path / "qemu-system-x86_64")) is None
