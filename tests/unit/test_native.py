"""`native` means this host's architecture; and what works on a host without Debian's tools."""

import os
import struct
from pathlib import Path

import anyio
import pytest

from quizmatrix.cli.doctor import doctor
from quizmatrix.cli.options import run_options
from quizmatrix.cli.parser import parse
from quizmatrix.core import tomlfile
from quizmatrix.core.errors import HostError, UsageError
from quizmatrix.debian import host
from quizmatrix.image import own, small
from quizmatrix.model.arch import host_arch, load_arch
from quizmatrix.model.cellid import with_real_arch
from quizmatrix.model.cells import expand
from quizmatrix.model.matrix import Matrix, load_matrix, shipped_matrices, with_native
from quizmatrix.prepare.selection import selected_cells

HOST = host_arch().name


def ids(text: str, host: str | None, tmp_path: Path) -> list[str]:
    path = tmp_path / "m.toml"
    path.write_text(text)
    return [cell.id for cell in expand(with_native(tomlfile.load(path, Matrix), host), "m.toml")]


def test_it_counts_once(tmp_path: Path) -> None:
    text = 'kernels = ["6.1"]\narches = ["native", "x86_64", "s390x"]\n'
    assert ids(text, "x86_64", tmp_path) == ["6.1-x86_64", "6.1-s390x"]
    assert ids(text, "s390x", tmp_path) == ["6.1-s390x", "6.1-x86_64"]
    assert ids(text, "aarch64", tmp_path) == ["6.1-aarch64", "6.1-x86_64", "6.1-s390x"]
    # A host whose architecture has no file in arch/ can run the other architectures.
    assert ids(text, None, tmp_path) == ["6.1-x86_64", "6.1-s390x"]


def test_everywhere_in_a_matrix(tmp_path: Path) -> None:
    text = """
    kernels = ["6.1", "6.12"]
    arches  = ["native", "s390x"]
    exclude = [{ kernel = "6.12", arch = "native" }]
    include = [
        { kernel = "6.1", arch = "native", memory = "3G" },
        { kernel = "6.1", arch = "native", variant = "v" },
    ]
    expect  = [{ arch = "native", outcome = "failed", why = "a test" }]
    [arch.native]
    cpus = 3
    timeout = "5m"
    append = "a"
    [arch.x86_64]
    cpus = 2
    append = "b"
    [variant.v]
    """
    path = tmp_path / "m.toml"
    path.write_text(text)
    found = {cell.id: cell for cell in expand(with_native(tomlfile.load(path, Matrix), "x86_64"), "m.toml")}
    assert list(found) == ["6.1-s390x", "6.12-s390x", "6.1-x86_64", "6.1-x86_64+v"]
    cell = found["6.1-x86_64"]
    # A setting for the architecture itself wins.
    assert (cell.memory, cell.cpus, cell.timeout, cell.append) == (3072, 2, 300, "a b")
    assert [one.expected for one in found.values()] == ["passed", "passed", "failed", "failed"]


@pytest.mark.parametrize("name", shipped_matrices())
def test_matrices_that_ship_run_on_an_arm64_host(name: str) -> None:
    raw = tomlfile.load(shipped_matrices()[name], Matrix)
    found = {cell.arch for cell in expand(with_native(raw, "aarch64"), name)}
    assert found >= {"aarch64", "x86_64", "s390x"}
    if HOST == "x86_64":
        assert {cell.arch for cell in expand(load_matrix(shipped_matrices()[name]), name)} == found - {
            "aarch64"
        }


def test_on_the_command_line() -> None:
    def chosen(*words: str) -> list[str]:
        args = parse(["cells", *words])
        return [cell.id for cell in selected_cells(run_options(args))]

    assert chosen("--only", "6.1-native") == [f"6.1-{HOST}"]
    assert chosen("--only", "4.19-native+kasan") == [f"4.19-{HOST}+kasan"]
    assert chosen("quick", "--only", "*-native", "-k", "6.1") == [f"6.1-{HOST}"]
    assert chosen("quick", "-a", f"native,{HOST}", "-k", "6.1") == [f"6.1-{HOST}"]
    assert chosen("-k", "4.19", "-a", f"native,{HOST}") == [f"4.19-{HOST}"]
    assert f"6.1-{HOST}" not in chosen("quick", "--skip", "*-native")
    assert with_real_arch("path:../native-x86_64") == "path:../native-x86_64"
    assert load_arch("native").name == HOST


@pytest.fixture
def no_debian(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host without apt and dpkg-deb; returns the folder with its other programs."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for folder in os.environ["PATH"].split(os.pathsep):
        for path in Path(folder).glob("*"):
            link = programs / path.name
            if path.name not in (*host.TOOLS, *own.NAMES) and not link.exists():
                link.symlink_to(path)
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setenv("QUIZMATRIX_CACHE_DIR", str(tmp_path / "cache"))
    return programs


def elf(*kinds: int, order: str = "<", width: int = 2) -> bytes:
    """A program with segments of these kinds."""
    head = b"\x7fELF" + bytes([width, 1 if order == "<" else 2]) + bytes(10)
    head += struct.pack(f"{order}HHIQQQIHHHHHH", 2, 22, 1, 0, 64, 0, 0, 64, 56, len(kinds), 0, 0, 0)
    return head + b"".join(struct.pack(f"{order}I", kind) + bytes(52) for kind in kinds)


def test_which_programs_are_static() -> None:
    for order in "<>":
        assert own.is_static(elf(1, 1, 4, order=order))
        assert not own.is_static(elf(6, 3, 1, order=order))
    for none in (
        b"",
        b"#!/bin/sh\n" * 9,
        elf(),
        elf(1, width=1),
        elf(1, 1)[:-60],
        b"\x7fELF" + bytes([2] * 99),
    ):
        assert not own.is_static(none)


def obtain(arch: str, told: list[str], *, offline: bool = False) -> bytes:
    async def play() -> bytes:
        image = await small.obtain(load_arch(arch), offline=offline, refresh=False, tell=told.append)
        return image.archive.read_bytes()

    return anyio.run(play)


def test_the_small_image_of_this_hosts_programs(no_debian: Path) -> None:
    foreign = "s390x" if HOST != "s390x" else "x86_64"
    for arch in (HOST, foreign):
        with pytest.raises(HostError, match=f"the small base image for {arch} cannot be made") as caught:
            obtain(arch, [])
        assert "`apt-get` is not installed" in caught.value.fact
        assert ("a static busybox" in caught.value.next_step) == (arch == HOST)
    (no_debian / "busybox").write_bytes(elf(3, 1) + b"DYNAMIC")
    (no_debian / "busybox-static").write_bytes(elf(1) + b"APPLETS")
    for name in ("busybox", "busybox-static"):
        (no_debian / name).chmod(0o755)
    told: list[str] = []
    made = obtain(HOST, told, offline=True)
    assert b"APPLETS" in made
    assert b"DYNAMIC" not in made
    assert "this host's own busybox" in told[-1]
    with pytest.raises(HostError):
        obtain(foreign, [])


def test_the_doctor_of_a_host_without_debian(no_debian: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = parse(["doctor"])
    doctor(args)
    lines = {
        line[6:].split("  ")[0].strip(): line
        for line in capsys.readouterr().out.splitlines()
        if line[4:6] == "  "
    }
    for tool in host.TOOLS:
        assert lines[tool].startswith("note")
        assert "Debian's kernels, sources and base images alone" in lines[tool]
    assert lines["small image"].startswith("LACK")


def test_an_unknown_architecture_names_native() -> None:
    with pytest.raises(UsageError) as caught:
        load_arch("vax")
    assert "native" in caught.value.next_step
