"""The command line that repeats a cell selects exactly that cell, with the same options."""

from pathlib import Path

import msgspec
import pytest

from quizmatrix.cli.options import run_options, run_request
from quizmatrix.cli.parser import parse
from quizmatrix.core.errors import UsageError
from quizmatrix.model.cells import Cell
from quizmatrix.model.options import NAMES_OF, RunOptions
from quizmatrix.model.outcome import Outcome
from quizmatrix.model.result import CellResult
from quizmatrix.model.spec import CommandLine
from quizmatrix.model.task import Task
from quizmatrix.prepare.selection import selected_tasks
from quizmatrix.run.reproduce import command_of
from quizmatrix.schedule import command_stdin
from quizmatrix.schedule.commandline import repeating, repeating_shell
from quizmatrix.schedule.planning import make_plan

MATRIX = """
source  = "debian-source"
kernels = ["6.1", "6.12"]
arches  = ["x86_64", "s390x"]
memory  = "700M"
append  = "loglevel=7"
include = [{ kernel = "6.1", arch = "x86_64", variant = "mine", memory = "2G" }]

[variant.mine]
config = ["CONFIG_KASAN=y"]

[arch.s390x]
boot-timeout = "77s"
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a matrix in it."""
    (tmp_path / "m.toml").write_text(MATRIX)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def options_of(*words: str) -> RunOptions:
    return run_options(parse(list(words)))


def tasks_of(*words: str) -> list[Task]:
    request = run_request(parse(list(words)))
    return selected_tasks(request.options, request.command)[1]


@pytest.mark.parametrize(
    "words",
    [
        "run m.toml -- ./t",
        "run m.toml --only 6.1-* --skip *-s390x -- ./t",
        "run m.toml -k 6.1 -a s390x --image debian -p net -- ./t",
        "run m.toml --shard 3 --only 6.1-x86_64 -- ./t",
        "run m.toml --only 6.1-x86_64@2of3,6.12-s390x -- ./t",
        "run endian -- ./t",
        "run -k 6.1,newest -a x86_64 --source kernel.org --cpus 2 -- ./t",
        "run --only 6.1-ppc64,6.1-x86_64+kasan --memory 3G --append slub_debug=FZP --append x=1 -- ./t",
        "run -- sh -c --only",
    ],
)
def test_it_means_the_same_cell(words: str) -> None:
    repeat = repeating(options_of(*words.split()))
    for task in tasks_of(*words.split()):
        (again,) = tasks_of(*repeat(task).argv[1:])
        assert again == task


def test_disks_that_are_handed_on() -> None:
    repeat = repeating(options_of("run", "handoff"))
    tasks = tasks_of("run", "handoff")
    for task in tasks:
        assert task in tasks_of(*repeat(task).argv[1:])


# A value for every option of `run` that determines a cell.
OPTIONS: dict[str, list[str]] = {
    "--accel": ["--accel", "tcg"],
    "--append": ["--append", "a=1 b"],
    "--arches": ["--arches", "x86_64"],
    "--bind": ["--bind", "a:/b:ro", "--bind", "c:/d"],
    "--boot-timeout": ["--boot-timeout", "3m"],
    "--cold": ["--cold"],
    "--cpus": ["--cpus", "2"],
    "--env": ["--env", "A=it's", "--env", "B=-x\n"],
    "--image": ["--image", "debian"],
    "--kernels": ["--kernels", "6.1"],
    "--layer": ["--layer", "l", "--layer", "m"],
    "--machine": ["--machine", "pc"],
    "--memory": ["--memory", "2G"],
    "--no-provide": ["--no-provide"],
    "--no-stdin": ["--no-stdin"],
    "--no-work-tree": ["--no-work-tree"],
    "--numa": ["--numa", "2"],
    "--on-timeout": ["--on-timeout", "dump"],
    "--profiles": ["--profiles", "memdev:count=2"],
    "--enable": ["--enable", "BTRFS_FS"],
    "--disable": ["--disable", "SMP"],
    "--module": ["--module", "DRM"],
    "--qemu": ["--qemu=-device virtio-rng-pci", "--qemu", "x"],
    "--shard": ["--shard", "2"],
    "--shard-like": ["--shard-like", "20261123-181501-a655"],
    "--shared-limit": ["--shared-limit", "2G"],
    "--source": ["--source", "debian"],
    "--stdin": ["--stdin", "f"],
    "--timeout": ["--timeout", "7s"],
    "--user": ["--user=-x"],
    "--warm": ["--warm"],
}


def test_every_option_is_kept_or_left_out_knowingly() -> None:
    known = {action.option_strings[-1] for action in parse(["run"]).parser._actions if action.option_strings}
    # Options that concern one run only; and the selection, which the cell's id replaces.
    names = {name for part in ("conduct", "hosts", "once", "results") for name in NAMES_OF[part]}
    names |= {"help", "only", "skip"}
    left_out = {f"--{name.replace('_', '-')}" for name in names}
    assert known - left_out == set(OPTIONS)


@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_comes_back(option: str, folder: Path) -> None:
    (task,) = tasks_of("run", "--only", "6.1-x86_64", "--", "./t", "a b")
    words = ["run", *OPTIONS[option], "-x", "--output", "o", "--refresh", "--json", "-", "--", "./t"]
    found = repeating(options_of(*words))(task)
    assert found.folder == str(folder)
    assert found.argv == [
        *["quizmatrix", "run", "--only", "6.1-x86_64"],
        *OPTIONS[option],
        "--",
        "./t",
        "a b",
    ]


def test_one_of_several_cells_reads_nobodys_stdin(tmp_path: Path) -> None:
    """Repeated alone, the cell would else read the stdin of its user."""
    words = ["run", "m.toml", "--source", "debian-source", "--", "cat"]
    options, tasks = options_of(*words), tasks_of(*words)
    plan = command_stdin.with_stdin(options, make_plan(options, tasks), tmp_path, None)
    assert plan.repeat is not None
    assert plan.repeat(tasks[0]).argv[-3:] == ["--no-stdin", "--", "cat"]


def test_where_it_is_typed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (task,) = tasks_of("run", "--only", "6.1-x86_64", "--", "./t")
    link = folder.with_name(f"{folder.name}-link")
    link.symlink_to(folder)
    for name, known in ((str(link), str(link)), (str(folder), str(folder)), ("/", str(folder))):
        monkeypatch.setenv("PWD", name)
        assert repeating(options_of("run", "--", "./t"))(task).folder == known


def test_of_a_terminal() -> None:
    (task,) = tasks_of("run", "--only", "6.1-x86_64", "--", "true")
    options = options_of("shell", "6.1-x86_64", "--memory", "2G")
    repeat = repeating_shell(options, [])
    assert repeat(task).argv == ["quizmatrix", "shell", "6.1-x86_64", "--memory", "2G"]
    assert repeating_shell(options, ["ls"])(task).argv[-2:] == ["--", "ls"]


def test_of_a_bisection() -> None:
    (task,) = tasks_of("run", "--only", "6.1.9-x86_64", "--", "true")
    options = options_of(
        *["bisect", "6.1.1", "6.1.20", "-a", "x86_64", "--source", "kernel.org", "--", "true"]
    )
    words = ["--only", "6.1.9-x86_64", "--source", "kernel.org", "--", "true"]
    assert repeating(options)(task).argv == ["quizmatrix", "run", *words]


def ids(*words: str) -> list[str]:
    return [task.id for task in tasks_of("run", *words, "--", "true")]


def test_a_slice_is_selected_by_its_id() -> None:
    assert ids("m.toml", "--only", "6.12-s390x@3of20") == ["6.12-s390x@3of20"]
    assert ids("--only", "6.1-x86_64@3of20") == ["6.1-x86_64@3of20"]
    assert ids("m.toml", "--shard", "2", "--only", "*-s390x@2of2") == ["6.1-s390x@2of2", "6.12-s390x@2of2"]
    assert ids("m.toml", "--only", "6.1-s390x,6.12-s390x@1of2") == [
        *("6.1-s390x@1of2", "6.1-s390x@2of2", "6.12-s390x@1of2")
    ]
    assert ids("--only", "6.1-x86_64", "--skip", "6.1-x86_64@[12]of3") == ["6.1-x86_64@3of3"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--only 6.1-x86_64@3of20 --shard 4", "different numbers of slices"),
        ("--only 6.1-x86_64@3of20,6.1-s390x@1of2", "different numbers of slices"),
        ("--only 6.1-x86_64@21of20", "6.1-x86_64@21of20 fits no slice"),
        ("--only 6.1-x86_64@0of20", "fits no slice"),
        ("--only 6.1-x86_64@1of2 --skip 6.1-x86_64@1of2", "no cell is left"),
    ],
)
def test_a_slice_that_is_none(words: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        ids(*words.split())


def test_what_a_report_shows(tmp_path: Path) -> None:
    cell: Cell = tasks_of("run", "--only", "6.1-x86_64", "--", "true")[0].cell
    result = CellResult(
        cell=cell.id,
        kernel="6.1",
        release=None,
        arch="x86_64",
        variant=None,
        accelerator=None,
        outcome=Outcome.FAILED,
    )
    assert command_of(result, tmp_path) == ""
    (tmp_path / "reproduce.sh").write_text("#!/bin/sh\ncd /x && exec quizmatrix run -- a\n")
    assert command_of(result, tmp_path) == "cd /x && quizmatrix run -- a"
    again = CommandLine(folder="/a b", argv=["quizmatrix", "run", "--", "it's\nso"])
    known = msgspec.structs.replace(result, again=again)
    assert command_of(known, tmp_path) == "cd '/a b' && quizmatrix run -- 'it'\"'\"'s\nso'"
