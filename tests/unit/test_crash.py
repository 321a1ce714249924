"""The memory of a guest that died: what is found in it, and what is said where it cannot be read."""

import os
import struct
from pathlib import Path
from typing import cast

import anyio
import msgspec
import pytest

from quizmatrix.core.errors import QuizmatrixError
from quizmatrix.crash import dump, memory, prstatus
from quizmatrix.crash.memory import KeptMemory
from quizmatrix.run import crashreport
from quizmatrix.run.memoryfile import MemoryFile
from quizmatrix.run.qmp import Monitor, QmpError
from quizmatrix.terminal import debugging
from tests import made_spec, tiny_elf

RELEASE = "6.1.0-50-s390x"
INFO = f"OSRELEASE={RELEASE}\nPAGESIZE=4096\nSYMBOL(swapper_pg_dir)=1673000\nKERNELOFFSET=0\n".encode()
# QEMU's files have memory from address 0 on, which drgn takes for no address at all in a plain ELF file.
BASE = 1 << 20

ORDERS = {"S390X": (">", 2, 22), "X86_64": ("<", 1, 62)}


def core(path: Path, architecture: str, content: bytes) -> KeptMemory:
    """An ELF core file (elf(5)) whose physical memory is `content`."""
    order, data, machine = ORDERS[architecture]
    ident = b"\x7fELF" + bytes([2, data, 1]) + bytes(9)
    header = struct.pack(f"{order}HHIQQQIHHHHHH", 4, machine, 1, 0, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    size = len(content)
    segment = struct.pack(f"{order}IIQQQQQQ", 1, 6, 4096, 0xFFFF000000000000, BASE, size, size, 4096)
    path.write_bytes((ident + header + segment).ljust(4096, b"\0") + content)
    return KeptMemory(
        core=str(path),
        architecture=architecture,
        bits=64,
        is_little_endian=order == "<",
        size=16,
        kernel="a-kernel",
        release=RELEASE,
        modules=[],
    )


@pytest.mark.parametrize("architecture", ORDERS)
@pytest.mark.parametrize("at", [0, 4096, (1 << 20) - 4096, 3 << 20])
def test_vmcoreinfo_is_found_anywhere_in_memory(architecture: str, at: int, tmp_path: Path) -> None:
    content = bytearray(4 << 20)
    content[at : at + len(INFO)] = INFO
    assert dump.vmcoreinfo(core(tmp_path / "vmcore", architecture, bytes(content))) == INFO


def test_the_text_of_another_kernel_and_its_template_are_passed_over(tmp_path: Path) -> None:
    content = bytearray(1 << 20)
    for at, text in (
        (0, b"OSRELEASE=%s\nPAGESIZE=%ld\n"),
        (4096, INFO.replace(b"6.1.0-50", b"6.1.0-49")),
        (8192, INFO.partition(b"SYMBOL")[0]),
        (12288, INFO),
    ):
        content[at : at + len(text)] = text
    assert dump.vmcoreinfo(core(tmp_path / "vmcore", "S390X", bytes(content))) == INFO


def test_a_memory_without_it_is_told_of(tmp_path: Path) -> None:
    known = core(tmp_path / "vmcore", "X86_64", bytes(1 << 20))
    with pytest.raises(dump.UnreadableError, match="CONFIG_PROC_KCORE"):
        dump.vmcoreinfo(known)


@pytest.mark.parametrize("content", [b"", b"KDUMP   ", b"makedumpfile\0\0\0\0", b"\x7fELF", bytes(9000)])
def test_a_file_that_is_none_is_told_of(content: bytes, tmp_path: Path) -> None:
    known = core(tmp_path / "vmcore", "X86_64", b"")
    Path(known.core).write_bytes(content)
    with pytest.raises(dump.UnreadableError, match=r"drgn cannot open|CONFIG_PROC_KCORE"):
        dump.vmcoreinfo(known)


def test_a_kernel_without_debug_information_is_told_of(tmp_path: Path) -> None:
    content = INFO.ljust(1 << 20, b"\0")
    known = core(tmp_path / "vmcore", "X86_64", content)
    (tmp_path / "vmlinux").write_bytes(tiny_elf.X86_64)
    whole = KeptMemory(
        **{name: getattr(known, name) for name in known.__struct_fields__}
        | {"vmlinux": str(tmp_path / "vmlinux")}
    )
    with pytest.raises(dump.UnreadableError, match="vmlinux"):
        dump.open_dump(whole)


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """A memory that was kept."""
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts/vmcore").write_bytes(b"memory")
    return tmp_path / "artifacts/vmcore"


@pytest.mark.anyio
async def test_without_drgn_its_installation_is_told(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    spec = made_spec.spec(kept.parents[1])
    assert crashreport.note(spec, kept) == []
    told = await crashreport.write(spec, kept)
    assert told == ([], ["drgn can read it: `pip install 'quizmatrix[debug]'` installs drgn"])
    # For `quizmatrix debug`, which may find drgn later.
    known = msgspec.json.decode((kept.parents[1] / memory.FILE).read_bytes(), type=KeptMemory)
    # The run's folder may be moved.
    assert known.core == "artifacts/vmcore"


@pytest.mark.anyio
async def test_without_symbols_the_command_that_fetches_them_is_told(kept: Path) -> None:
    spec = made_spec.spec(kept.parents[1])
    assert not crashreport.can_be_read(spec)
    _, (note,) = await crashreport.write(spec, kept)
    assert note == "drgn can read it: a kernel of the variant `debug` has the debug information that it needs"
    assert not (kept.parents[1] / crashreport.FILE).exists()


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("6.1-x86_64", "`6.1-x86_64` is no RUN/CELL"),
        ("{run}/5.4-x86_64", "has no cell 5.4-x86_64"),
        ("{run}/6.1-x86_64", "the memory of {run}/6.1-x86_64 was not kept"),
        ("{run}/6.12-x86_64", "memory.json cannot be read"),
        ("{run}/6.1-s390x", "the kernel a-kernel is no longer in the cache"),
    ],
)
def test_what_debug_cannot_open(
    place: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUIZMATRIX_CACHE_DIR", str(tmp_path / "cache"))
    for name in ("6.1-x86_64", "6.12-x86_64", "6.1-s390x"):
        (tmp_path / "run" / name).mkdir(parents=True)
    (tmp_path / "run/6.12-x86_64" / memory.FILE).write_text("{}")
    known = core(tmp_path / "vmcore", "S390X", b"")
    (tmp_path / "run/6.1-s390x" / memory.FILE).write_bytes(msgspec.json.encode(known))
    run = str(tmp_path / "run")
    with pytest.raises(QuizmatrixError) as raised:
        debugging.debug(place.format(run=run), [])
    assert said.format(run=run) in str(raised.value)


def kdump(order: str, registers: list[bytes]) -> bytes:
    """The beginning of a file for kdump, with the notes of CPUs."""
    block = 4096
    notes = b""
    for number, found in enumerate(registers):
        prstatus = bytes(110 + number % 2) + found
        for kind, name, content in (
            (1, b"CORE\0", prstatus),
            (2, b"CORE\0", bytes(8)),
            (1, b"LINUX\0", b"x"),
        ):
            head = struct.pack(f"{order}III", len(name), len(content), kind)
            notes += head + name.ljust(-(-len(name) // 4) * 4, b"\0")
            notes += content.ljust(-(-len(content) // 4) * 4, b"\0")
    header = b"KDUMP   ".ljust(428, b"\0") + struct.pack(f"{order}I", block)
    sub_header = bytes(48) + struct.pack(f"{order}QQ", block + 100, len(notes))
    return header.ljust(block, b"\0") + sub_header.ljust(100, b"\0") + notes


def flattened(whole: bytes, size: int) -> bytes:
    """The same in pieces (makedumpfile(8), -F), and a page of memory far behind it."""
    file = b"makedumpfile".ljust(4096, b"\0")
    for at in range(0, len(whole), size):
        piece = whole[at : at + size]
        file += struct.pack(">qq", at, len(piece)) + piece
    return file + struct.pack(">qq", 1 << 40, 5) + b"hello" + struct.pack(">qq", -1, -1)


@pytest.mark.parametrize("order", [">", "<"])
@pytest.mark.parametrize("size", [0, 100, 4096, 1 << 20])
def test_the_notes_of_cpus_are_found(order: str, size: int, tmp_path: Path) -> None:
    whole = kdump(order, [b"first", b"second"])
    file = tmp_path / "vmcore"
    file.write_bytes(flattened(whole, size) if size else whole)
    found = prstatus.notes(file, is_little_endian=order == "<")
    assert [note.lstrip(b"\0") for note in found] == [b"first", b"second"]


@pytest.mark.parametrize(
    "content",
    [b"", b"KDUMP   ", b"\x7fELF", kdump(">", [b"a"])[:4150], flattened(kdump(">", [b"a"]), 4096)[:4200]],
)
def test_a_file_without_notes_has_none(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "vmcore").write_bytes(content)
    assert prstatus.notes(tmp_path / "vmcore", is_little_endian=False) == []


class OfQemu:
    """In place of QEMU's control channel: it writes a memory, or fails."""

    def __init__(self, failure: str = "") -> None:
        self._failure = failure

    async def open(self) -> None:
        """Nothing to do."""

    async def dump_memory(self, file: int) -> None:
        os.write(file, b"memory")
        if self._failure:
            raise QmpError(self._failure)


@pytest.mark.anyio
async def test_a_memory_that_is_only_read_has_no_name(tmp_path: Path) -> None:
    (tmp_path / "artifacts").mkdir()
    taken = MemoryFile(made_spec.spec(tmp_path))
    await taken.take(cast("Monitor", OfQemu()))
    assert taken.unkept is not None
    with taken.unkept as file:
        # By this path drgn opens it in a process of its own.
        done = await anyio.run_process(["cat", f"/proc/{os.getpid()}/fd/{file.fileno()}"])
        assert done.stdout == b"memory"
    assert taken.hand_over() == []
    assert [path.name for path in tmp_path.iterdir()] == ["artifacts"]


@pytest.mark.anyio
async def test_a_memory_that_qemu_did_not_write_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "artifacts").mkdir()
    taken = MemoryFile(made_spec.spec(tmp_path))
    assert await taken.keep(cast("Monitor", OfQemu("no"))) == "its memory could not be kept: no"
    # Nobody has asked for this one, so nobody is told.
    await taken.take(cast("Monitor", OfQemu("no")))
    assert taken.unkept is None
    assert [path.name for path in tmp_path.iterdir()] == ["artifacts"]


@pytest.mark.anyio
async def test_a_memory_that_is_kept_takes_no_name_of_the_guests(tmp_path: Path) -> None:
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts/vmcore").symlink_to("/etc/passwd")
    taken = MemoryFile(made_spec.spec(tmp_path))
    assert await taken.keep(cast("Monitor", OfQemu())) == ""
    assert taken.hand_over() == ["its memory is in artifacts/vmcore-1"]
    assert taken.kept is not None
    assert taken.kept.read_bytes() == b"memory"
