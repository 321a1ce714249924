"""Nightly jobs: which lines of the user's files are changed, and what is reported if ours were edited."""

import fcntl
import json
import multiprocessing
import os
import shutil
import stat
import subprocess
import sys
from datetime import datetime, timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from quizmatrix.cli import run_command
from quizmatrix.core.errors import DataError, HostError, QuizmatrixError, UsageError
from quizmatrix.model.result import RunResults
from quizmatrix.nightly import crontab, lock, systemd
from quizmatrix.nightly import job as jobs
from quizmatrix.nightly.job import Job, Night, NightlyStarter
from quizmatrix.runs import directory, retention
from tests.unit.test_history import START, result, seed, state

__all__ = ["state"]  # a fixture


def job_of(name: str = "n", at: str = "02:05", state_dir: str = "/s", **more: object) -> Job:
    return msgspec.structs.replace(
        Job(
            name=name,
            at=at,
            scheduler=NightlyStarter.CRON,
            arguments=["quick"],
            command=["a b", "%"],
            folder="/f",
            environment={"QUIZMATRIX_STATE_DIR": state_dir},
            entry=["/a b/100%/python$X", "-P", "-m", "quizmatrix", "nightly", "run", name],
            entry_environment={"QUIZMATRIX_CONFIG_DIR": '/c "d" \\e %h'},
        ),
        **more,
    )


JOB = job_of()
MARK, LINE = crontab.mark_of("n").encode() + b"\n", crontab.line_of(JOB).encode() + b"\n"

# --- the crontab -----------------------------------------------------------------------------------------

THEIRS = b"0 5 * * * their own\n"
# A user's crontab, with lines that look almost like ours.
LINES = some.sampled_from(
    [
        b"\n", b"\r\n", b"  \n", b"# a comment\n", b"MAILTO=me@example.org\n", b"PATH=/a:/b\r\n", THEIRS,
        b"@daily printf '\\%s' x\n", b"\x0c\n", b"a\x0bb\n", b"\xff\xfe\n", b"\r\r\n",
        b"# quizmatrix nightly\n", b"# quizmatrix nightly nn\n", b" # quizmatrix nightly n\n",
        b"0 2 * * * python -m quizmatrix nightly run nn\n", b"5 2 * * * x -m quizmatrix nightly run n\n",
        crontab.mark_of("other").encode() + b"\n", crontab.line_of(job_of("other")).encode() + b"\n",
    ]
) | some.binary(max_size=12).map(lambda line: line.replace(b"\n", b"") + b"\n")  # fmt: skip
CRONTABS = some.lists(LINES, max_size=12).map(b"".join)


@settings(deadline=None)
@given(CRONTABS, some.binary(max_size=4))
def test_what_is_not_ours_stays(text: bytes, end: bytes) -> None:
    text += end.replace(b"\n", b"").replace(b"#", b"")
    there = crontab.with_job(text, JOB)
    whole = text if text.endswith(b"\n") or not text else text + b"\n"
    # crontab(1) refuses one whose last line has no end, so that there is none to give back.
    assert there == whole + MARK + LINE
    assert crontab.trouble_in(there, JOB) == ""
    assert crontab.without_job(there, "n") == whole
    assert crontab.with_job(there, JOB) == there


@settings(deadline=None)
@given(CRONTABS, CRONTABS)
def test_one_that_is_there_is_replaced_in_its_place(before: bytes, after: bytes) -> None:
    later = job_of(at="23:59")
    there = before + MARK + LINE + after
    moved = crontab.with_job(there, later)
    assert moved == before + MARK + crontab.line_of(later).encode() + b"\n" + after
    assert crontab.without_job(moved, "n") == before + after


@settings(deadline=None)
@given(CRONTABS, CRONTABS)
def test_jobs_do_not_meet(before: bytes, after: bytes) -> None:
    others = [job_of("n.n"), job_of("n-1"), job_of("N")]
    text = before + after
    for other in others:
        text = crontab.with_job(text, other)
    assert crontab.without_job(crontab.with_job(text, JOB), "n") == text
    for other in others:
        text = crontab.without_job(text, other.name)
    assert text == before + after


@pytest.mark.parametrize(
    ("text", "says", "left"),
    [
        (b"", "line in the crontab was deleted by hand", b""),
        (THEIRS, "line in the crontab was deleted by hand", THEIRS),
        # A line after a mark that does not run the job is the user's.
        (MARK + THEIRS, "its mark was not", THEIRS),
        (MARK, "its mark was not", b""),
        (LINE + THEIRS, "its mark in the crontab was deleted by hand", LINE + THEIRS),
        (MARK + LINE.replace(b"5 2", b"5 4") + THEIRS, "edited by hand: 5 4 * * *", THEIRS),
        (MARK + b"#" + LINE + THEIRS, "edited by hand: #5 2", THEIRS),
        (MARK + LINE.strip() + b" >> log 2>&1\n", "edited by hand", b""),
        (MARK + LINE + THEIRS + MARK + LINE, "2 times", THEIRS),
        (MARK + LINE, "", b""),
        # An editor may end all lines with \r\n; cron(8) passes the \r on, and no word of ours may get it.
        ((MARK + LINE + THEIRS).replace(b"\n", b"\r\n"), "", THEIRS.replace(b"\n", b"\r\n")),
    ],
)
def test_what_was_done_by_hand(text: bytes, says: str, left: bytes) -> None:
    trouble = crontab.trouble_in(text, JOB)
    assert says in trouble
    assert bool(says) is bool(trouble)
    assert crontab.without_job(text, "n") == left


def test_cron_runs_what_was_meant(tmp_path: Path) -> None:
    """Read a line as cron(8) does: an escaped % is a %, and /bin/sh gets the command."""
    program = tmp_path / '100% of $HOME\'s "programs"'
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$QUIZMATRIX_CONFIG_DIR" "$@"\n')
    program.chmod(0o755)
    job = job_of(entry=[str(program), *JOB.entry[1:]])
    five = crontab.line_of(job).split(" ", 5)
    assert five[:5] == ["5", "2", "*", "*", "*"]
    assert "%" not in five[5].replace(r"\%", "")
    done = subprocess.run(["sh", "-c", five[5].replace(r"\%", "%")], capture_output=True, check=True)
    assert done.stdout.decode().splitlines() == ['/c "d" \\e %h', *JOB.entry[1:]]


@pytest.mark.parametrize("path", ["/a\nb/python", "/" + "a" * 1000])
def test_what_a_crontab_cannot_hold(path: str) -> None:
    with pytest.raises(HostError, match="a crontab cannot run"):
        crontab.line_of(job_of(entry=[path, *JOB.entry[1:]]))


def test_whether_a_daemon_runs(tmp_path: Path) -> None:
    (tmp_path / "12").mkdir()
    (tmp_path / "13").mkdir()
    (tmp_path / "12/comm").write_text("anacrony\n")
    assert not crontab.daemon_runs(tmp_path)
    (tmp_path / "12/comm").write_text("cron\n")
    assert crontab.daemon_runs(tmp_path)


# --- systemd ---------------------------------------------------------------------------------------------


def test_units_are_what_systemd_takes(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze (Debian's package: systemd)")
    for name, entry in (("plain", "/bin/true"), ("odd", "/bin/true")):
        job = job_of(name, entry=[entry, "a b", "100%", "$HOME", 'q"', "\\", ";", "", "tab\there", "é"])
        for kind, text in (("service", systemd.service_of(job)), ("timer", systemd.timer_of(job))):
            (tmp_path / f"{systemd.unit_name(name)}.{kind}").write_text(text)
    units = sorted(str(path) for path in tmp_path.glob("*.*"))
    verify = ["systemd-analyze", "--user", "--man=no", "verify", *units]
    done = subprocess.run(
        verify, capture_output=True, check=False, env=os.environ | {"XDG_RUNTIME_DIR": str(tmp_path)}
    )
    assert (done.returncode, done.stderr.decode()) == (0, "")


def test_units_are_escaped() -> None:
    text = systemd.service_of(JOB)
    assert 'ExecStart="/a b/100%%/python$$X" -P -m quizmatrix nightly run n\n' in text
    assert 'Environment="QUIZMATRIX_CONFIG_DIR=/c \\"d\\" \\\\e %%h"\n' in text
    assert "OnCalendar=*-*-* 02:05:00\nPersistent=true\n" in systemd.timer_of(JOB)


# --- the job ---------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("state")
def test_a_job_is_kept() -> None:
    jobs.save(JOB)
    assert jobs.load("n") == JOB
    assert "n" in jobs.names()
    # The proxy's address may contain a password.
    assert stat.S_IMODE(jobs.path_of("n").parent.stat().st_mode) == 0o700
    jobs.path_of("n").write_text("{")
    with pytest.raises(DataError, match="is no nightly run's file"):
        jobs.load("n")
    assert jobs.remove("n")
    assert not jobs.remove("n")
    with pytest.raises(UsageError, match="there is no nightly run `n`"):
        jobs.load("n")
    with pytest.raises(UsageError, match="cannot be kept"):
        jobs.save(job_of(command=["\udcff"]))


@pytest.mark.parametrize(
    ("text", "at"),
    [("2:00", "02:00"), ("23:59", "23:59"), ("24:00", ""), ("2", ""), ("2:5", ""), ("٢:٠٠", "")],
)
def test_times_of_day(text: str, at: str) -> None:
    if at:
        assert jobs.parse_at(text) == at
    else:
        with pytest.raises(ValueError, match="a time of day"):
            jobs.parse_at(text)


def test_names() -> None:
    assert jobs.name_of("nightly") == "nightly"
    assert jobs.name_of("../my tests/big endian.toml") == "big-endian"
    for bad in ("", "../x", "a b", "-x", "a%b", "x" * 65, "a\n"):
        with pytest.raises(UsageError, match="cannot be named"):
            jobs.check_name(bad)


def test_the_next_night() -> None:
    before, then = (datetime.fromisoformat(f"2026-12-31T02:{minutes}") for minutes in ("04:59", "05:00"))
    assert JOB.next_time(before) == then
    assert JOB.next_time(then) == datetime.fromisoformat("2027-01-01T02:05:00")


# --- the lock --------------------------------------------------------------------------------------------


def hold(job: Job, ready: Connection) -> None:
    with lock.held(job):
        ready.send(os.getpid())
        ready.poll(60)


def test_one_night_at_a_time(tmp_path: Path) -> None:
    job = job_of(state_dir=str(tmp_path))
    assert lock.holder(job) is None
    here, there = multiprocessing.Pipe()
    other = multiprocessing.get_context("spawn").Process(target=hold, args=(job, there))
    other.start()
    pid = here.recv()
    with pytest.raises(UsageError, match="still going on") as busy, lock.held(job):
        pass
    assert busy.value.cause.startswith(f"process {pid}, since 20")
    who = lock.holder(job)
    assert who is not None
    assert who.pid == pid
    other.kill()
    other.join()
    # The text in the lock file is still there, but means nothing any more.
    assert str(pid) in (tmp_path / "nightly/n.lock").read_text()
    assert lock.holder(job) is None
    with lock.held(job):
        assert lock.holder(job) is not None


def test_who_only_looks_stops_nobody(tmp_path: Path) -> None:
    job = job_of(state_dir=str(tmp_path))
    with lock.held(job):
        pass
    looking = os.open(tmp_path / "nightly/n.lock", os.O_RDONLY)
    fcntl.flock(looking, fcntl.LOCK_SH)
    closer = multiprocessing.get_context("fork").Process(target=_wait_a_moment)
    closer.start()
    os.close(looking)
    with lock.held(job):
        closer.join()


def _wait_a_moment() -> None:
    """A child that inherited the lock, as between fork(2) and execve(2)."""
    import time

    time.sleep(0.3)


# --- the command line ------------------------------------------------------------------------------------


@pytest.fixture
def host(tmp_path: Path, state: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host with its own crontab and without systemd; returns the crontab's file."""
    programs, table = tmp_path / "programs", tmp_path / "crontab"
    programs.mkdir()
    for name, text in (
        (
            "crontab",
            f"""case $1 in
            -l) cat '{table}' 2>/dev/null || {{ echo "no crontab for you" >&2; exit 1; }} ;;
            -r) rm '{table}' ;;
            -) cat > '{table}' ;;
            esac""",
        ),
        ("systemctl", "exit 1"),
    ):
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("QUIZMATRIX_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    # `nightly run` sets what the job has.
    monkeypatch.setenv("QUIZMATRIX_STATE_DIR", str(state))
    return table


def say(capsys: pytest.CaptureFixture[str], *argv: str, expect: int | None = 0) -> str:
    """Run a command; returns its output. expect: the exit status; None if it depends on this host's cron."""
    status = run_command(["nightly", *argv])
    out, err = capsys.readouterr()
    assert expect in (None, status), out + err
    return out + err


def test_installed_shown_and_removed(host: Path, capsys: pytest.CaptureFixture[str]) -> None:
    host.write_bytes(THEIRS)
    assert "There are no nightly runs" in say(capsys, "status")
    said = say(
        capsys, "install", "--at", "2:05", "nightly", "--keep", "3", "--on-finish", "mail me", "--", "a b"
    )
    assert "nightly: every night at 02:05, by a line in your crontab\n" in said
    assert "7 VMs: quizmatrix run nightly --on-finish 'mail me' --quiet -- 'a b'" in said
    assert "runs kept: the newest 3" in said
    first = host.read_bytes()
    assert first.startswith(THEIRS + b"# quizmatrix nightly nightly\n5 2 * * * env QUIZMATRIX_CONFIG_DIR=")
    assert first.endswith(b" -m quizmatrix nightly run nightly\n")
    assert sys.executable.encode() in first
    again = say(capsys, "install", "nightly", "--at", "03:00", "--", "true")
    assert "(replaced)" in again
    assert host.read_bytes() == first.replace(b"\n5 2 ", b"\n0 3 ")
    say(capsys, "install", "quick", "--name", "other", "--at", "4:00", "-k", "6.1", "--", "true")
    shown = json.loads(say(capsys, "status", "--json", expect=None))
    assert [one["name"] for one in shown] == ["nightly", "other"]
    assert shown[1]["arguments"] == ["quick", "-k", "6.1"]
    assert "Did you mean `other`" in say(capsys, "remove", "othr", expect=125)
    say(capsys, "remove", "nightly")
    say(capsys, "remove", "other")
    assert host.read_bytes() == THEIRS
    host.unlink()
    say(capsys, "install", "quick", "--at", "4:00", "--", "true")
    say(capsys, "remove", "quick")
    assert not host.exists()


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["quick", "--", "true"], "--at"),
        (["quick", "--at", "25:00", "--", "true"], "a time of day"),
        (["quick", "--at", "2:00"], "there is no command to run"),
        (["quack", "--at", "2:00", "--", "true"], "Did you mean `quick`"),
        (["quick", "--at", "2:00", "--only", "4.4-*", "--", "true"], "fits no cell"),
        (["quick", "--at", "2:00", "--keep", "0", "--", "true"], "--keep 0"),
        (["quick", "--at", "2:00", "--older-than", "x", "--", "true"], "--older-than x"),
        (["quick", "--at", "2:00", "--html", "/none/x", "--", "true"], "--html /none/x cannot be written"),
        (["quick", "--at", "2:00", "--output", "x", "--", "true"], "unknown option --output"),
        (["quick", "--at", "2:00", "--name", "a/b", "--", "true"], "cannot be named"),
        (["quick", "--at", "2:00", "--scheduler", "systemd", "--", "true"], "--scheduler cron"),
        (["quick", "--at", "2:00", "--fail-on", "luck", "--", "true"], "--fail-on"),
        (["quick", "--at", "2:00", "--stdin", "-", "--", "true"], "--stdin - gives nothing at night"),
    ],
)
def test_what_cannot_be_installed(
    argv: list[str], says: str, host: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert says in say(capsys, "install", *argv, expect=125)
    assert not host.exists()
    assert jobs.names() == []


def test_a_crontab_that_cannot_be_read_is_not_written(
    host: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    host.write_bytes(THEIRS)
    (tmp_path / "programs/crontab").write_text("#!/bin/sh\necho 'you are not allowed' >&2\nexit 1\n")
    said = say(capsys, "install", "quick", "--at", "2:00", "--", "true", expect=125)
    assert "cannot read your crontab: you are not allowed" in said
    assert host.read_bytes() == THEIRS
    assert jobs.names() == []


def install(capsys: pytest.CaptureFixture[str], *argv: str) -> Job:
    say(capsys, "install", "quick", "--at", "2:00", *argv, "--", "./t")
    return jobs.load("quick")


def test_a_second_night_does_not_begin(host: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert host
    job = install(capsys)
    with lock.held(job):
        said = say(capsys, "run", "quick", expect=125)
        assert said.startswith(
            f"quizmatrix: the nightly run quick is still going on: process {os.getpid()}, since 20"
        )
        assert "going on: process" in say(capsys, "status", expect=None)


def test_what_is_gone_is_said(
    host: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert host
    work = tmp_path / "elsewhere"
    work.mkdir()
    (work / "my.toml").write_text('kernels = ["6.1"]\narches = ["s390x"]\n')
    monkeypatch.chdir(work)
    say(capsys, "install", "my.toml", "--at", "2:00", "--", "./t")
    (work / "my.toml").unlink()
    monkeypatch.chdir(tmp_path)
    assert "no matrix file my.toml" in say(capsys, "run", "my", expect=125)
    night = jobs.last_night(jobs.load("my"))
    assert night is not None
    assert night.exit_code == 125
    assert "no matrix file my.toml" in night.error
    work.rmdir()
    assert f"cannot go to {work}" in say(capsys, "run", "my", expect=125)
    shown = say(capsys, "status", "my", expect=1)
    assert "exit status 125, the nightly run my cannot go to" in shown
    assert "  next  never" in shown
    assert "there is no nightly run `mine`" in say(capsys, "run", "mine", expect=125)


def test_a_damaged_file_is_said_and_can_be_removed(host: Path, capsys: pytest.CaptureFixture[str]) -> None:
    install(capsys)
    jobs.path_of("quick").write_text("no JSON")
    assert "is no nightly run's file" in say(capsys, "status", expect=1)
    assert "nightly remove quick" in say(capsys, "run", "quick", expect=125)
    say(capsys, "remove", "quick")
    assert not host.exists()


def test_a_night_that_was_killed(host: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert host
    job = install(capsys)
    jobs.keep_night(job, Night(started="2026-11-25T02:00:00.000+00:00"))
    assert "it was killed" in say(capsys, "status", expect=None)


def test_only_its_own_runs_are_removed(host: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The night ends without a verdict, since the cache is empty and it runs offline."""
    assert host
    others = [seed(number, [result("6.1-s390x")], command=["another"]) for number in (1, 2)]
    mine = [seed(number, [result("6.1-s390x")]) for number in (3, 4, 5)]
    install(capfd, "--only", "6.1-s390x", "--offline", "--keep", "2")
    said = say(capfd, "run", "quick", expect=125)
    # With a single cell, too, only changes are printed.
    assert "not tested\n  6.1-s390x  passed -> unprepared\n\nlogs: " in said
    runs = [folder for folder, _ in directory.list_runs()]
    assert set(others) <= set(runs)
    assert [folder.exists() for folder in mine] == [False, False, True]
    night = jobs.last_night(jobs.load("quick"))
    assert night is not None
    assert (night.exit_code, night.totals, night.run) == (125, {"unprepared": 1}, runs[0].name)
    assert say(capfd, "run", "quick", expect=125).startswith("no cell could be tested\n  ")


@pytest.mark.usefixtures("state")
def test_by_age_only_its_own_runs_go_too() -> None:
    theirs = seed(1, [result("6.1-s390x")], command=["another"])
    mine = [seed(number, [result("6.1-s390x")]) for number in (2, 3, 4)]
    seed(5, [result("6.1-s390x")])

    def old(keep: int, day: int, **among: Any) -> list[Path]:
        before = START + timedelta(days=day, hours=1)
        return sorted(one.folder for one in retention.old_runs(keep, before, **among))

    def is_mine(results: RunResults) -> bool:
        return results.command == ["./t"]

    assert old(1, 3) == [theirs, *mine[:2]]
    assert old(1, 3, among=is_mine) == mine[:2]
    assert old(3, 3, among=is_mine) == mine[:1]


def test_systemd_is_asked(
    host: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A systemd that accepts every command, and the list of these commands."""
    told = tmp_path / "told"
    for name, text in (("systemctl", f"echo $* >> '{told}'"), ("loginctl", "echo no")):
        (tmp_path / "programs" / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / "programs" / name).chmod(0o755)
    host.write_bytes(THEIRS)
    say(capsys, "install", "quick", "--at", "2:00", "--scheduler", "cron", "--", "true")
    said = say(capsys, "install", "quick", "--at", "3:00", "--", "true")
    assert "by a timer of your systemd (replaced)" in said
    assert "loginctl enable-linger" in said
    assert host.read_bytes() == THEIRS  # the line of the first one is gone
    timer = tmp_path / "xdg/systemd/user/quizmatrix-quick.timer"
    assert "OnCalendar=*-*-* 03:00:00" in timer.read_text()
    assert told.read_text().splitlines()[-3:] == [
        "--user daemon-reload",
        "--user enable quizmatrix-quick.timer",
        "--user restart quizmatrix-quick.timer",
    ]
    assert "by systemd" in say(capsys, "status")
    timer.write_text(timer.read_text().replace("03:00", "05:00"))
    assert "was edited by hand" in say(capsys, "status", expect=1)
    timer.unlink()
    assert "was removed by hand" in say(capsys, "status", expect=1)
    say(capsys, "remove", "quick")
    assert list(timer.parent.iterdir()) == []
    assert told.read_text().splitlines()[-2:] == [
        "--user disable --now quizmatrix-quick.timer",
        "--user daemon-reload",
    ]
    assert host.read_bytes() == THEIRS
    monkeypatch.setenv("PATH", str(tmp_path / "none"))
    with pytest.raises(QuizmatrixError):
        crontab.read()
