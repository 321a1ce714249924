"""Files written by an earlier version (1795248) can be read: runs, history, nightly jobs, configuration."""

import json
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from quizmatrix.cli import run_command
from quizmatrix.cli.options import run_request
from quizmatrix.cli.parser import parse
from quizmatrix.cli.run import read_arguments
from quizmatrix.model.archive import load_archive
from quizmatrix.model.options import (
    ConductOptions,
    GuestOptions,
    LimitOptions,
    ResultOptions,
    RunOptions,
    SelectionOptions,
)
from quizmatrix.model.outcome import Outcome
from quizmatrix.nightly import job as jobs
from quizmatrix.prepare.selection import selected_tasks
from quizmatrix.report.progress import tell
from quizmatrix.runs import directory, rerun, resume
from quizmatrix.runs.history.record import History
from quizmatrix.schedule.planning import make_plan
from tests.earlier import FAILED, KILLED, PASSED, copy_to

COMMAND = 'test "$(uname -m)" = x86_64 || test -e fixed'
FAILED_CELL = "6.1-s390x"


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Its files; the current folder is the one that its runs were started in."""
    root = tmp_path / "earlier"
    for name, value in copy_to(root).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(root / "here")
    return root


def said(capsys: pytest.CaptureFixture[str], *argv: str, status: int = 0) -> str:
    assert run_command(list(argv)) == status
    return capsys.readouterr().out


def test_its_runs_are_listed_and_shown(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = said(capsys, "runs", "list").splitlines()[2:]
    assert [row.split()[0] for row in rows] == [KILLED, FAILED, PASSED]
    assert [row.split()[3] for row in rows] == ["unfinished", "1", "0"]
    text = said(capsys, "runs", "show", FAILED)
    assert "6.1-s390x: failed (1)" in text
    assert "to go on with it: quizmatrix run --resume" in said(capsys, "runs", "show")
    again = (
        f"cd {root}/here && quizmatrix run m.toml --only 6.1-s390x --memory 700M --append loglevel=7 "
        f"--stdin input --env A=x --user nobody -- 'test"
    )
    assert again in said(capsys, "runs", "show", FAILED, "--markdown", "-")
    for form in ("--junit", "--html", "--json"):
        said(capsys, "runs", "show", FAILED, form, str(root / form))
    assert all("6.1-s390x" in (root / form).read_text() for form in ("--junit", "--json"))
    assert (root / "--html").read_text().startswith("<!doctype html>")
    assert said(capsys, "runs", "logs", KILLED, "6.1-s390x") == "bound\n"


def test_its_runs_are_compared(capsys: pytest.CaptureFixture[str]) -> None:
    lines = ["regressed", "  6.1-s390x  passed -> failed (1)"]
    assert said(capsys, "runs", "compare", PASSED, FAILED, status=1).splitlines()[2:] == lines
    # Without names it is the last of the two that are of one kind; from the history where they are gone.
    assert said(capsys, "runs", "compare", status=1).splitlines()[2:] == lines
    for run in (PASSED, FAILED):
        shutil.rmtree(directory.runs_dir() / run)
    assert said(capsys, "runs", "compare", PASSED, FAILED, status=1).splitlines()[2:] == lines


def test_its_history_is_read() -> None:
    history = History(tell)
    points = history.points(FAILED_CELL, datetime(2026, 1, 1, tzinfo=UTC))
    assert [(point.run, point.outcome) for point in points] == [
        (PASSED, Outcome.PASSED),
        (FAILED, Outcome.FAILED),
    ]
    history.catch_up()
    assert [run.run for run in history.runs()] == [KILLED, FAILED, PASSED]


def test_a_run_of_it_is_resumed(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.chdir("/")
    request = resume.with_its_command(run_request(parse(["run", "--resume", KILLED])), read_arguments)
    assert request.command == ["cat /b/word; printenv B; exit 3"]
    assert msgspec.structs.replace(request.options, once=RunOptions().once) == RunOptions(
        selection=SelectionOptions(matrix="m.toml", profiles=["memdev:count=1,size=16M"]),
        guest=GuestOptions(stdin="/dev/null", layer=["../base"], bind=["../base:/b:ro"], env=["B=-y z"]),
        conduct=ConductOptions(jobs=1),
    )
    assert Path.cwd() == root / "here"
    place = str(directory.runs_dir() / KILLED)
    _, tasks = selected_tasks(request.options, request.command)
    choice = resume.choose(place, tasks)
    assert [task.id for task in choice.tasks] == ["6.1-x86_64"]
    assert [result.cell for _, result in choice.earlier] == ["6.1-s390x"]
    assert request.options.once.resume == place
    layers = make_plan(request.options, choice.tasks).guest.layers
    assert layers == [root / "data/quizmatrix/layer", root / "here/../base"]
    out = said(capsys, "run", "--resume", KILLED, "--dry-run")
    assert "6.1-x86_64" in out
    assert "6.1-s390x" not in out


def test_what_failed_last_in_it_is_run_again(capsys: pytest.CaptureFixture[str]) -> None:
    out = said(capsys, "run", "m.toml", "--last-failed", "--dry-run", "--", COMMAND)
    assert "6.1-s390x" in out
    assert "6.1-x86_64" not in out


def test_without_a_command_it_is_the_last_run_of_it() -> None:
    shutil.rmtree(directory.runs_dir() / KILLED)
    asked = run_request(parse(["run", "--last-failed"]))
    request = rerun.with_last_command(asked, History(tell), read_arguments)
    assert request.command == [COMMAND]
    assert msgspec.structs.replace(request.options, once=RunOptions().once) == RunOptions(
        selection=SelectionOptions(matrix="m.toml"),
        limits=LimitOptions(memory="700M", append=["loglevel=7"]),
        guest=GuestOptions(stdin="input", env=["A=x"], user="nobody"),
    )


def test_its_nightly_job_is_read(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = jobs.load("n")
    assert (job.at, job.keep, job.older_than, job.command) == ("02:05", 3, "30d", ["./t", "a b"])
    assert job.options is None
    assert read_arguments(job.arguments) == RunOptions(
        selection=SelectionOptions(matrix="m.toml", only=["*-s390x"]),
        guest=GuestOptions(stdin="/dev/null", env=["A=x"]),
        results=ResultOptions(fail_on="regression"),
    )
    # 1: on a host where no cron runs.
    assert run_command(["nightly", "status", "--json"]) in (0, 1)
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["name"], found["folder"]) == ("n", str(root / "here"))
    assert "by hand" not in found["trouble"]
    assert "n is not run any more" in said(capsys, "nightly", "remove", "n")
    assert (root / "crontab").read_text() == ""


def test_its_users_configuration_is_read() -> None:
    archive = load_archive()
    assert archive.suite["trixie"].mirrors == ["http://ftp.de.debian.org/debian"]
    assert "bookworm" in archive.suite
