"""Disks that are handed from cell to cell: tasks, their order, which are skipped, what is printed."""

import re
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import msgspec
import pytest

from quizmatrix.cli import run_command
from quizmatrix.cli.options import run_options
from quizmatrix.cli.parser import parse
from quizmatrix.core.errors import DataError, UsageError
from quizmatrix.model.cells import Cell, expand
from quizmatrix.model.handoff import handing_on
from quizmatrix.model.labels import TaskGroup, TaskLabels
from quizmatrix.model.matrix import Handoff, Matrix, load_matrix
from quizmatrix.model.outcome import Outcome
from quizmatrix.model.result import CellResult, Timings
from quizmatrix.model.spec import CellSpec
from quizmatrix.model.task import Task
from quizmatrix.prepare.selection import selected
from quizmatrix.report.common import common_sentence
from quizmatrix.report.grid import command_words, exit_status, explanations, grid, kept_disks, summary
from quizmatrix.run import reproduce
from quizmatrix.run.observer import Observer
from quizmatrix.run.runlayer import command_environment
from quizmatrix.runs import directory
from quizmatrix.schedule.admission import Admission
from quizmatrix.schedule.plan import Plan
from quizmatrix.schedule.scheduler import Scheduler
from tests.ready import Ready, ended

ARCHES = ["x86_64", "s390x", "ppc64"]
BASE = 'kernels = ["6.1"]\narches = ["x86_64", "s390x"]\n'
HANDOFF = '[handoff]\nwrite = "w"\nread = "r"\n'


def cells(*arches: str) -> list[Cell]:
    return expand(Matrix(kernels=["6.1"], arches=list(arches or ARCHES)), "test")


def planned(cells: list[Cell], **more: Any) -> list[Task]:
    return handing_on(cells, Handoff(write="w", read="r", **more), "test")


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("disks = 0", "line 6: `handoff.disks`: has to be 1 to 16, not 0"),
        ("disks = 17", "line 6: `handoff.disks`: has to be 1 to 16, not 17"),
        ('size = "8Q"', "line 6: `handoff.size`: not a size"),
        ("from = []", "line 6: `handoff.from`: names no cell"),
        ("sise = 1", "line 6: unknown key `sise`"),
        ("back = 1", "line 6: `handoff.back`: "),
        ('from = ["6.1-s390"]', "`handoff.from`: 6.1-s390 fits no cell"),
        ('to = ["*", "6.2-*"]', "`handoff.to`: 6.2-* fits no cell"),
    ],
)
def test_what_a_matrix_may_not_say(lines: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "m.toml"
    path.write_text(BASE + HANDOFF + lines)
    with pytest.raises(DataError, match=re.escape(words)):
        expand(load_matrix(path), str(path))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[handoff]\nwrite = "w"\n', "`read`"),
        ('[handoff]\nwrite = " "\nread = "r"', "line 4: `handoff.write`: there is no command in it"),
    ],
)
def test_both_commands_have_to_be_there(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "m.toml"
    path.write_text(BASE + text)
    with pytest.raises(DataError, match=re.escape(words)):
        load_matrix(path)


def test_who_writes_and_who_reads() -> None:
    tasks = planned(cells("x86_64", "s390x"), from_=("*-s390x",), back=True)
    assert [(task.id, task.cell.id, task.command, task.after) for task in tasks] == [
        ("6.1-s390x", "6.1-s390x", ["w"], ()),
        ("6.1-s390x..6.1-x86_64", "6.1-x86_64", ["r"], ("6.1-s390x",)),
        ("6.1-s390x..6.1-s390x", "6.1-s390x", ["r"], ("6.1-s390x",)),
        ("6.1-s390x..6.1-x86_64..6.1-s390x", "6.1-s390x", ["r"], ("6.1-s390x..6.1-x86_64",)),
        ("6.1-s390x..6.1-s390x..6.1-s390x", "6.1-s390x", ["r"], ("6.1-s390x..6.1-s390x",)),
    ]
    assert len(planned(cells(), back=True)) == 3 + 9 + 9
    with pytest.raises(UsageError, match=r"`handoff\.to` of test matches none of the selected cells"):
        planned(cells("x86_64"), to=("*-s390x",))


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "m.toml"
    path.write_text(BASE + HANDOFF + 'disks = 2\nto = ["*-x86_64"]')
    assert run_command(["run", str(path), "--", "true"]) == 125
    assert "m.toml takes no command: it has commands of its own" in capsys.readouterr().err
    for argv in (["run", str(path), "--dry-run"], ["cells", str(path)]):
        assert run_command(argv) == 0
        shown = capsys.readouterr().out
        assert "2 disks of 256M, written in 6.1-x86_64, 6.1-s390x:\n    w\n" in shown
        assert "read in 6.1-x86_64:\n    r\n4 VMs: 2 write, 2 read\n" in shown
    assert run_command(["run", str(path), "--dry-run", "--only", "*-s390x"]) == 125
    assert "`handoff.to`" in capsys.readouterr().err
    args = parse(["run", "handoff"])
    chosen = selected(run_options(args))
    assert chosen.handoff is not None
    assert len(handing_on(chosen.cells, chosen.handoff, "handoff")) == 21


class Guests:
    """Replaces the VMs: each adds its id to the first disk, and ends with the given outcome."""

    def __init__(self, outcomes: dict[str, list[str]]) -> None:
        self._outcomes = {name: list(given) for name, given in outcomes.items()}
        self.seen: list[str] = []
        self.found: dict[str, str] = {}

    async def run(self, spec: CellSpec, observer: Observer) -> CellResult:
        assert spec.labels.task is not None
        name = spec.labels.task.id
        self.seen.append(name)
        path = Path(spec.files.disks[0].path)
        assert path.parent == Path(spec.files.folder) / "disks"
        data = path.read_bytes()
        self.found[name] = data.rstrip(b"\0").decode()
        assert len(data) == 1 << 20
        path.write_bytes(f"{self.found[name]} {name}".strip().encode().ljust(len(data), b"\0"))
        await anyio.lowlevel.checkpoint()
        outcome = Outcome((self._outcomes.get(name) or ["passed"]).pop(0))
        if outcome is Outcome.CANCELLED:
            await anyio.sleep_forever()
        return ended(spec, outcome)


RunCell = Callable[[CellSpec, Observer], Awaitable[CellResult]]


def conduct(folder: Path, plan: Plan, run_cell: RunCell, places: int = 9) -> list[CellResult]:
    """Run a plan into the folder `run`, with `run_cell` in place of VMs."""
    (folder / "kernel").mkdir()
    run_directory = directory.create(folder / "run", [], Handoff(write="w", read="r"))
    admission = Admission(cpus=99, memory=1 << 20, places=places)

    async def play() -> list[CellResult]:
        ready = Ready(folder / "kernel")
        with anyio.fail_after(20):
            return await Scheduler(plan, run_directory, ready, lambda _event: None, admission, run_cell).run()

    return anyio.run(play)


class Played:
    """A finished run whose guests end with `outcomes`."""

    def __init__(self, tmp_path: Path, tasks: list[Task], places: int = 9, **more: Any) -> None:
        self.folder = tmp_path / "run"
        self.guests = Guests({name: text.split() for name, text in more.pop("outcomes", {}).items()})
        results = conduct(tmp_path, Plan(tasks=tasks, **more), self.guests.run, places)
        self.results = {one.cell: one for one in results}

    @property
    def disks(self) -> list[str]:
        """The remaining folders of disks."""
        return sorted(str(path.relative_to(self.folder)) for path in self.folder.glob("*/disks"))

    @property
    def outcomes(self) -> list[str]:
        return [result.outcome for result in self.results.values()]


def test_each_gets_a_copy_and_nothing_is_left(tmp_path: Path) -> None:
    played = Played(tmp_path, planned(cells(), size="1M", back=True))
    assert set(played.outcomes) == {"passed"}
    assert len(played.outcomes) == 21
    found = played.guests.found
    assert found["6.1-s390x"] == ""
    assert found["6.1-s390x..6.1-ppc64"] == "6.1-s390x"
    assert found["6.1-s390x..6.1-ppc64..6.1-s390x"] == "6.1-s390x 6.1-s390x..6.1-ppc64"
    assert played.disks == []
    first = played.results["6.1-s390x..6.1-ppc64"]
    assert (first.arch, first.labels) == (
        "ppc64",
        TaskLabels(group=TaskGroup.READ, writer="6.1-s390x", reader="6.1-ppc64"),
    )
    kept = directory.load(played.folder)
    assert {one.cell: one for one in kept.cells} == played.results
    assert command_words(kept) == "handoff: w; r"


def test_writers_come_first_and_a_pair_waits_for_its_own_alone(tmp_path: Path) -> None:
    seen = Played(tmp_path, planned(cells(), size="1M", back=True), places=1).guests.seen
    assert sorted(seen[:3]) == sorted(f"6.1-{arch}" for arch in ARCHES)
    (tmp_path / "more").mkdir()
    outcomes = {"6.1-s390x": "cancelled", "6.1-ppc64..6.1-x86_64": "failed"}
    played = Played(tmp_path / "more", planned(cells(), size="1M"), fail_fast=True, outcomes=outcomes)
    # One writer did not end, but the others' disks were read.
    assert played.results["6.1-ppc64..6.1-x86_64"].outcome == "failed"
    assert played.results["6.1-s390x"].outcome == "cancelled"
    assert played.results["6.1-s390x..6.1-x86_64"].outcome == "cancelled"
    assert played.disks == ["6.1-ppc64/disks"]


def test_who_did_not_write_is_not_read(tmp_path: Path) -> None:
    outcomes = {"6.1-s390x": "panicked", "6.1-x86_64..6.1-s390x": "failed"}
    played = Played(
        tmp_path, planned(cells("x86_64", "s390x"), size="1M", back=True), fail_fast=False, outcomes=outcomes
    )
    skipped = {name: one.detail for name, one in played.results.items() if one.outcome == "skipped"}
    why = "6.1-s390x did not write the disks: panicked"
    assert skipped == {
        "6.1-s390x..6.1-x86_64": why,
        "6.1-s390x..6.1-s390x": why,
        "6.1-x86_64..6.1-s390x..6.1-x86_64": "6.1-s390x did not read the disks of 6.1-x86_64: failed",
        "6.1-s390x..6.1-x86_64..6.1-s390x": why,
        "6.1-s390x..6.1-s390x..6.1-s390x": why,
    }
    # The disks with which a reader failed are kept as the writer left them.
    assert played.disks == ["6.1-x86_64/disks"]
    assert (played.folder / "6.1-x86_64/disks/quizh0").read_bytes().rstrip(b"\0") == b"6.1-x86_64"
    failed = played.results["6.1-x86_64..6.1-s390x"]
    assert failed.labels is not None
    assert failed.labels.kept == "6.1-x86_64/disks"
    shown = explanations(list(played.results.values()), played.folder)
    assert f"  disks it was given: {played.folder}/6.1-x86_64/disks/" in shown
    assert f"skipped: {why}" in shown
    assert exit_status(list(played.results.values())) == 1


def test_a_reader_is_run_from_what_its_writer_was(tmp_path: Path) -> None:
    inputs = []
    for command in ("w", "w", "other"):
        shutil.rmtree(tmp_path / "here", ignore_errors=True)
        (tmp_path / "here").mkdir()
        # In the last run only the writer's command differs.
        write, *rest = planned(cells("s390x"), size="1M")
        tasks = [msgspec.structs.replace(write, command=[command]), *rest]
        played = Played(tmp_path / "here", tasks)
        inputs.append([result.inputs for result in played.results.values()])
    assert all(inputs[0])
    assert inputs[0] == inputs[1]
    assert inputs[0][0] != inputs[2][0]
    assert inputs[0][1] != inputs[2][1]


def test_what_was_not_tested_is_tried_again_with_fresh_disks(tmp_path: Path) -> None:
    outcomes = {"6.1-s390x": "lost lost", "6.1-s390x..6.1-s390x": "lost"}
    played = Played(tmp_path, planned(cells("s390x"), size="1M"), retries=2, outcomes=outcomes)
    assert played.outcomes == ["passed", "passed"]
    assert [result.attempts for result in played.results.values()] == [3, 2]
    assert played.guests.found == {"6.1-s390x": "", "6.1-s390x..6.1-s390x": "6.1-s390x"}
    assert played.disks == []


def test_of_what_came_home_broken_the_readers_disks_are_kept(tmp_path: Path) -> None:
    way = "6.1-s390x..6.1-x86_64"
    tasks = planned(cells("x86_64", "s390x"), size="1M", from_=("*-s390x",), to=("*-x86_64",), back=True)
    played = Played(tmp_path, tasks, outcomes={f"{way}..6.1-s390x": "failed"})
    assert played.outcomes == ["passed", "passed", "failed"]
    assert played.disks == [f"{way}/disks"]
    assert exit_status(list(played.results.values())) == 1


def test_the_environment_and_reproduce(tmp_path: Path) -> None:
    specs: list[CellSpec] = []

    async def look(spec: CellSpec, observer: Observer) -> CellResult:
        specs.append(spec)
        return await Guests({}).run(spec, observer)

    tasks = planned(cells("x86_64", "s390x"), size="1M", disks=2, from_=("*-s390x",), to=("*-x86_64",))
    conduct(tmp_path, Plan(tasks=tasks, matrix="/m.toml"), look)
    environment = command_environment(specs[1])
    assert environment["QUIZMATRIX_CELL"] == "6.1-x86_64"
    assert environment["QUIZMATRIX_HANDOFF"] == "read"
    assert environment["QUIZMATRIX_DISKS"] == "/dev/quizh0 /dev/quizh1"
    assert environment["QUIZMATRIX_WRITER"] == "6.1-s390x"
    for spec in specs:
        Path(spec.files.disks[0].path).parent.mkdir(exist_ok=True)
        Path(spec.files.disks[0].path).write_bytes(b"x" * 512)
        Path(spec.files.disks[1].path).write_bytes(b"")
        reproduce.write_script(spec, [])
    write, read = [(Path(spec.files.folder) / "reproduce.sh").read_text() for spec in specs]
    assert 'truncate -s 512 "$dir/quizh0"' in write
    assert f'cp --sparse=always {tmp_path}/run/6.1-s390x/disks/quizh1 "$dir/quizh1"' in read
    assert "quizmatrix run /m.toml --only 6.1-s390x,6.1-x86_64 --image small --no-work-tree\n" in read
    assert 'file.filename="$dir"/quizh0 ' in read


def handed(way: str, outcome: str = "passed") -> CellResult:
    """The result of `WRITER..READER` and so on."""
    names = way.split("..")
    group = list(TaskGroup)[len(names) - 1]
    kernel, arch = names[-1].rsplit("-", 1)
    return CellResult(
        cell=way, kernel=kernel, release=f"{kernel}.9", arch=arch, variant=None, accelerator=None,
        outcome=Outcome(outcome), exit_code=1 if outcome == "failed" else None,
        timings=Timings(command=1.25),
        labels=TaskLabels(group=group, writer=names[0], reader=names[1] if len(names) > 1 else None),
    )  # fmt: skip


def test_the_grid() -> None:
    results = [
        handed("6.1-x86_64"),
        handed("6.1-s390x", "panicked"),
        handed("6.1-x86_64..6.1-x86_64"),
        handed("6.1-x86_64..6.1-s390x", "failed"),
        handed("6.1-x86_64..6.1-x86_64..6.1-x86_64", "splat"),
    ]
    assert grid(results).splitlines() == [
        "written on    write            read on 6.1-x86_64    read on 6.1-s390x",
        "------------  ---------------  --------------------  -------------------",
        "6.1-x86_64    passed  1.25s    passed  1.25s         failed (1)  1.25s",
        "6.1-s390x     panicked  1.25s  -                     -",
        "",
        "back on     from 6.1-x86_64",
        "----------  -----------------",
        "6.1-x86_64  splat  1.25s",
    ]
    assert summary(results, None) == "5 steps: 2 passed, 1 failed, 1 panicked, 1 splat"


def test_results_of_an_earlier_version() -> None:
    x86, s390x = "6.1-x86_64", "6.1-s390x"
    write = {"step": "write", "written_on": x86, "read_on": None, "kept": None}
    read = {"step": "read", "written_on": x86, "read_on": s390x, "kept": f"{x86}/disks"}
    written = [(x86, "x86_64", write), (f"{x86}..{s390x}", "s390x", read)]
    common: dict[str, Any] = {"kernel": "6.1", "release": "6.1.9", "variant": None, "accelerator": "tcg"}
    texts = [
        common | {"cell": cell, "arch": arch, "outcome": "passed", "exit_code": 0, "handoff": handoff}
        for cell, arch, handoff in written
    ]
    results = msgspec.json.decode(msgspec.json.encode(texts), type=list[CellResult])
    assert grid(results).splitlines()[::2] == [
        "written on    write    read on 6.1-s390x",
        "6.1-x86_64    passed   passed",
    ]
    assert kept_disks(results, Path("/run")) == ["/run/6.1-x86_64/disks/"]
    assert [one["handoff"] for one in msgspec.to_builtins(results)] == [handoff for _, _, handoff in written]


CELLS = [f"6.{minor}-{arch}" for minor in (1, 12) for arch in ARCHES]
BIG = ("s390x", "ppc64")


def same_order(writer: str, reader: str) -> bool:
    return writer.endswith(BIG) == reader.endswith(BIG)


@pytest.mark.parametrize(
    ("fails", "sentence"),
    [
        (lambda w, r: w.endswith(BIG), "Fails only where written on big-endian."),
        (lambda w, r: w.endswith("s390x"), "Fails only where written on s390x."),
        (lambda w, r: r.endswith("s390x"), "Fails only where read on s390x."),
        (lambda w, r: not same_order(w, r), "Fails only across byte orders."),
        (
            lambda w, r: w.endswith(BIG) and r.endswith("x86_64"),
            "Fails only where written on big-endian and read on x86_64.",
        ),
        (lambda w, r: r.startswith("6.12"), "Fails only where read on 6.12."),
        (lambda w, r: w != r, "Fails only where another cell wrote the disks."),
        (lambda w, r: w.endswith("s390x") and r.endswith("s390x") and w != r, "Fails only where written on "
         "s390x (2 of 12 there)."),
        (lambda w, r: (w, r) in ((CELLS[0], CELLS[1]), (CELLS[1], CELLS[0])), ""),
        (lambda w, r: True, ""),
    ],
)  # fmt: skip
def test_the_sentence(fails: Callable[[str, str], bool], sentence: str) -> None:
    results = [handed(writer) for writer in CELLS]
    results += [handed(f"{w}..{r}", "failed" if fails(w, r) else "passed") for w in CELLS for r in CELLS]
    assert common_sentence(results) == sentence


def test_each_step_has_a_sentence() -> None:
    results = [handed("6.1-x86_64"), handed("6.1-s390x", "panicked"), handed("6.1-ppc64")]
    results += [handed(f"{w}..{r}") for w in ("6.1-x86_64", "6.1-ppc64") for r in CELLS[:3]]
    results += [
        handed(f"{w}..{r}..{w}", "failed" if r == "6.1-ppc64" else "passed")
        for w in ("6.1-x86_64", "6.1-ppc64")
        for r in CELLS[:3]
    ]
    sentence = "Writing: panics only on s390x. Back home: fails only where read on ppc64."
    assert common_sentence(results) == sentence
    # A writer without a known result is not mentioned.
    assert common_sentence([one for one in results[3:] if one.cell.startswith("6.1-ppc64")]) != ""
    lonely = [handed("6.1-s390x..6.1-x86_64", "failed"), handed("6.1-s390x..6.1-ppc64")]
    assert common_sentence(lonely) == ""
