"""Makes a run directory without a VM, for tests of reports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from quizmatrix.core.json import to_json
from quizmatrix.model.events import CellFinished, CellNote, CellReached
from quizmatrix.model.labels import TaskGroup, TaskLabels
from quizmatrix.model.matrix import Handoff
from quizmatrix.model.result import CellResult
from quizmatrix.model.stage import Stage
from quizmatrix.model.subtest import Subtest, SubtestOutcome
from quizmatrix.runs import directory
from quizmatrix.subtests import reading
from tests.unit.test_report import result

# Attacks on the reader of a log. Each changes the title of a page that executes it.
SCRIPT = "document.title='pwned'"
HOSTILE = (
    f"</script><script>{SCRIPT}</script><img src=x onerror={SCRIPT}>\n"
    f"</pre></code></details>]]>&lt;<!-- <svg onload={SCRIPT}>\n"
    f"[a](javascript:{SCRIPT}) | ```` | ``` | `` | <style>*{{display:none}}</style>\n"
    "```\n# no heading\n\x1b]0;title\x07\x1b[2J\x1b[31mred\x1b[0m\x00\x08\x0b\x0c\u202eevil\u2066\n"
    "{{script}} {{data}} <!--data-->\n"
).encode() + b"\xff\xfe\xed\xa0\x80 bytes that are no text\n"

TRACE = (
    b"[    2.000001] BUG: unable to handle page fault for address: ffffffffc0ffee00\n"
    b"[    2.000002] CPU: 0 PID: 77 Comm: repro Not tainted 6.12.9 #1\n"
    b"[    2.000003] Call Trace:\n[    2.000004]  frobnicate+0x12/0x34\n"
    b"[    2.000005] Kernel panic - not syncing: Fatal exception\n"
)


def boot_lines(count: int) -> bytes:
    return b"".join(b"[    0.%06d] boot line %d\r\n" % (number, number) for number in range(count))


def make_run(
    folder: Path,
    cells: dict[str, tuple[CellResult, dict[str, bytes]]],
    *,
    command: list[str],
    handoff: Handoff | None = None,
    finished: bool = True,
    tests: dict[str, dict[str, str]] | None = None,
) -> Path:
    """Cells with their results and files, and of each the outcome of tests by name."""
    run_directory = directory.create(folder, command, handoff, tasks=list(cells))
    run_directory.write_event(CellNote(cell="", text="x86_64: tcg, no /dev/kvm"))
    results = []
    for cell, (one, files) in cells.items():
        place = run_directory.cell_folder(one.folder)
        for name, data in files.items():
            (place / name).write_bytes(data)
        if of_cell := (tests or {}).get(cell):
            listed = [Subtest(name=name, outcome=SubtestOutcome(word)) for name, word in of_cell.items()]
            (place / reading.FILE).write_bytes(to_json(listed))
        run_directory.write_event(CellReached(cell=cell, stage=Stage.RUNNING))
        run_directory.write_cell(one.folder, one)
        run_directory.write_event(CellFinished(result=one))
        results.append(one)
    if finished:
        run_directory.finish(results, 1)
    return folder


def hostile_run(folder: Path, **more: Any) -> Path:
    """Nine cells of every kind, whose logs attack their reader."""
    name = f"functional/<script>{SCRIPT}</script>|`x`"
    cells: dict[str, tuple[CellResult, dict[str, bytes]]] = {
        "6.1-x86_64": (result("6.1-x86_64"), {"stdout": b"all good\n"}),
        "6.1-s390x": (
            result("6.1-s390x", "failed", exit_code=3, detail=f"<b>{SCRIPT}</b>", subtests={"failed": 2}),
            {"stdout": HOSTILE + b"the needle in stdout\n", "stderr": HOSTILE},
        ),
        "6.1-ppc64": (result("6.1-ppc64", "timed-out", detail="the command was still running after 20m"), {}),
        "6.12-x86_64": (result("6.12-x86_64", subtests={"passed": 2}), {"stdout": b"all good\n"}),
        "6.12-s390x": (
            result("6.12-s390x", "panicked", detail="unable to handle page fault"),
            {"console.log": boot_lines(300) + HOSTILE + TRACE + boot_lines(20), "stdout": b""},
        ),
        "6.12-ppc64": (result("6.12-ppc64", "splat", detail="WARNING: CPU: 0"), {"console.log": HOSTILE}),
        "newest-x86_64": (result("newest-x86_64", "failed", expected="failed"), {"stdout": b"known\n"}),
        "newest-s390x": (result("newest-s390x", "unprepared", release=None, detail="no kernel"), {}),
        "newest-ppc64": (result("newest-ppc64", "lost", detail="QEMU died"), {"qemu.log": HOSTILE}),
    }
    tests = {
        "6.1-s390x": {name: "failed", "functional/b": "failed"},
        "6.12-x86_64": {name: "passed", "functional/b": "passed"},
    }
    return make_run(
        folder, cells, command=["./zfs-tests.sh", f"</script><script>{SCRIPT}"], tests=tests, **more
    )


def handoff_run(folder: Path, **more: Any) -> Path:
    """Two cells that hand on their disks and get them back; s390x cannot read what x86_64 wrote."""
    x86, s390x = "6.1-x86_64", "6.1-s390x"
    bad = f"{x86}..{s390x}"
    failed = {
        bad: ("failed", {"detail": "no pool"}, f"{x86}/disks"),
        f"{bad}..{x86}": ("skipped", {"detail": f"{s390x} did not read the disks of {x86}: failed"}, None),
    }
    cells: dict[str, tuple[CellResult, dict[str, bytes]]] = {}
    ways: list[tuple[TaskGroup, str, str | None]] = [
        (TaskGroup.WRITE, writer, None) for writer in (x86, s390x)
    ]
    ways += [
        (group, writer, reader)
        for group in (TaskGroup.READ, TaskGroup.BACK)
        for writer in (x86, s390x)
        for reader in (x86, s390x)
    ]
    for group, writer, reader in ways:
        name = TaskLabels(group=group, writer=writer, reader=reader).id
        outcome, fields, kept = failed.get(name, ("passed", {}, None))
        labels = TaskLabels(group=group, writer=writer, reader=reader, kept=kept)
        ran = (reader or writer) if group is TaskGroup.READ else writer
        one = msgspec.structs.replace(result(ran, outcome, labels=labels, **fields), cell=name)
        cells[name] = (one, {"stdout": f"{name} says so\n".encode()})
    handoff = Handoff(write="./number write", read="./number read", back=True)
    return make_run(folder, cells, command=[], handoff=handoff, **more)
