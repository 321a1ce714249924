"""Where reports are written, and what happens to a run whose reports cannot be written."""

import json
from pathlib import Path

import pytest

from quizmatrix.cli import run_command
from quizmatrix.model.options import REPORTS
from quizmatrix.report.formats import Format
from quizmatrix.runs import directory
from tests.made_run import hostile_run

# This cell has no kernel, so the run ends at once.
RUN = ["run", "--offline", "--only", "6.1-x86_64"]


@pytest.fixture(autouse=True)
def _folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CACHE", "STATE", "CONFIG"):
        monkeypatch.setenv(f"QUIZMATRIX_{name}_DIR", str(tmp_path / name))
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)


def test_every_format_has_its_option() -> None:
    assert set(REPORTS) == set(Format)


def test_a_run_writes_every_report(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    asked = [f"--{form}={tmp_path / form}" for form in Format]
    assert run_command([*RUN, *asked, "--", "true"]) == 125
    starts = {form: (tmp_path / form).read_text()[:15] for form in Format}
    assert starts[Format.JSON].startswith('{\n  "schema": 1')
    assert starts[Format.JUNIT].startswith("<?xml version")
    assert starts[Format.MARKDOWN].startswith("## ❌ 1 cell")
    assert starts[Format.HTML].startswith("<!doctype html>")
    assert "cannot write" not in capfd.readouterr().err
    results = directory.load(directory.find_run("latest"))
    assert json.loads((tmp_path / "json").read_text())["cells"][0]["outcome"] == "unprepared"
    assert results.exit_code == 125


def test_a_target_that_cannot_be_written_is_no_verdict(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for form in Format:
        (tmp_path / form).mkdir()
    (tmp_path / "summary").mkdir()
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary"))
    asked = [f"--{form}={tmp_path / form}" for form in Format]
    assert run_command([*RUN, *asked, "--", "true"]) == 125
    said = capfd.readouterr().err
    for form in Format:
        assert f"quizmatrix: cannot write {tmp_path / form}: Is a directory" in said
    assert f"cannot write {tmp_path / 'summary'} ($GITHUB_STEP_SUMMARY)" in said
    assert "Traceback" not in said
    assert directory.load(directory.find_run("latest")).exit_code == 125


def test_a_device_is_written_to_and_not_replaced(capfd: pytest.CaptureFixture[str]) -> None:
    assert run_command([*RUN, "--html", "/dev/full", "--junit", "/dev/null", "--", "true"]) == 125
    assert "cannot write /dev/full: No space left" in capfd.readouterr().err
    assert Path("/dev/null").is_char_device()


def test_the_summary_of_a_job_grows_to_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    summary = tmp_path / "summary"
    summary.write_text("# Before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    assert run_command([*RUN, "--", "true"]) == 125
    assert run_command([*RUN, "--", "true"]) == 125
    text = summary.read_text()
    assert text.startswith("# Before\n\n## ❌ 1 cell")
    assert text.count("## ❌ 1 cell") == 2
    summary.write_bytes(b"x" * ((1 << 20) - 600))
    run_command([*RUN, "--", "true"])
    assert summary.stat().st_size <= 1 << 20
    assert summary.read_text().endswith("has all.*\n")


@pytest.mark.parametrize("form", Format)
def test_stdout_holds_the_report_alone(form: Format, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert run_command([*RUN, f"--{form}", "-", "--", "true"]) == 125
    captured = capfdbinary.readouterr()
    assert b"unprepared" in captured.err
    assert run_command(["runs", "show", "latest", f"--{form}", "-"]) == 0
    assert captured.out == capfdbinary.readouterr().out != b""


@pytest.mark.parametrize("form", Format)
def test_reports_of_a_kept_run(
    form: Format, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    run = str(hostile_run(tmp_path / "run"))
    assert run_command(["runs", "show", run, f"--{form}", str(tmp_path / "report")]) == 0
    assert capfdbinary.readouterr().out == b""
    assert run_command(["runs", "show", run, f"--{form}", "-"]) == 0
    assert capfdbinary.readouterr().out == (tmp_path / "report").read_bytes()
    assert run_command(["runs", "show", run, f"--{form}", str(tmp_path)]) == 125
    assert b"cannot write" in capfdbinary.readouterr().err


def test_json_of_a_kept_run_goes_to_stdout_by_itself(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    run = str(hostile_run(tmp_path / "run"))
    assert run_command(["runs", "show", run, "--json"]) == 0
    assert json.loads(capfdbinary.readouterr().out)["schema"] == 1


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--junit", "/no/dir/x"], ["--junit /no/dir/x cannot be written", "folder of yours"]),
        (["--junit", "-", "--html", "-"], ["--junit and --html cannot share stdout"]),
    ],
)
def test_what_cannot_work_is_said_before_anything_runs(
    argv: list[str], words: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = str(hostile_run(tmp_path / "run"))
    for command in ([*RUN, *argv, "--", "true"], ["runs", "show", run, *argv]):
        assert run_command(command) == 125
        said = capfd.readouterr().err
        for word in words:
            assert word in said
    assert directory.list_runs() == []
