"""Shows when each nightly job runs next, and how its last night went."""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path

import msgspec

from quizmatrix.core.errors import QuizmatrixError
from quizmatrix.core.json import to_json
from quizmatrix.core.process import printable
from quizmatrix.core.text import clean_detail, clean_line
from quizmatrix.model.outcome import EXIT_FAILED, EXIT_OK
from quizmatrix.nightly import crontab, lock, systemd
from quizmatrix.nightly import job as jobs
from quizmatrix.nightly.job import Night, NightlyStarter, TimerState


class JobStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What `nightly status --json` prints about a job. next: ISO 8601, local time with its zone."""

    name: str
    at: str = ""
    scheduler: NightlyStarter | None = None
    folder: str = ""
    arguments: list[str] = []
    command: list[str] | None = None
    next: str | None = None
    trouble: str = ""
    going_on: lock.Holder | None = None
    last: Night | None = None


def print_status(job: str | None, *, as_json: bool) -> int:
    """Print when each job (or only this one) runs next, and how its last night went.

    Returns exit status 1 where a job will not run, else 0.
    """
    names = [job] if job else jobs.names()
    if job and job not in jobs.names():
        raise jobs.unknown(job)
    shown = [_status_of(name) for name in names]
    if as_json:
        sys.stdout.write(to_json(shown).decode())
    elif not shown:
        print("There are no nightly runs. quizmatrix nightly install MATRIX --at 02:00 -- COMMAND")
    else:
        print("\n\n".join(_text_of(one) for one in shown))
    return EXIT_FAILED if any(one.trouble for one in shown) else EXIT_OK


def _status_of(name: str) -> JobStatus:
    try:
        job = jobs.load(name)
    except QuizmatrixError as error:
        return JobStatus(name=name, trouble=str(error))
    by = crontab if job.scheduler is NightlyStarter.CRON else systemd
    try:
        state = by.timer_state(job, datetime.now())  # noqa: DTZ005 - local time is meant
    except QuizmatrixError as error:
        state = TimerState(trouble=str(error))
    # If these are missing, cron and systemd tell the user nothing.
    gone = [path for path in (job.entry[0], job.folder) if not Path(path).exists()]
    if not state.trouble and gone:
        state = TimerState(trouble=f"{gone[0]} is gone: install it again, or remove it")
    return JobStatus(
        name=name,
        at=job.at,
        scheduler=job.scheduler,
        folder=job.folder,
        arguments=job.arguments,
        command=job.command,
        next=state.next.astimezone().isoformat() if state.next else None,
        trouble=state.trouble,
        going_on=lock.holder(job),
        last=jobs.last_night(job),
    )


def _text_of(one: JobStatus) -> str:
    when = f"every night at {one.at}, by {one.scheduler}" if one.scheduler else "damaged"
    lines = [f"{one.name}: {when}"]
    if one.scheduler is not None:
        command = ["--", *one.command] if one.command else []
        lines.append(f"  runs  {clean_line(printable(['quizmatrix', 'run', *one.arguments, *command]))}")
        lines.append(f"  in    {clean_line(one.folder)}")
        lines.append(f"  next  {_local(one.next) if one.next else 'never'}")
        lines.append(f"  last  {_night_words(one)}")
    if one.going_on is not None:
        lines.append(f"  now   going on: {one.going_on.words}")
    if one.trouble:
        lines.append(f"  !     {clean_detail(one.trouble)}")
    return "\n".join(lines)


def _local(moment: str) -> str:
    return f"{datetime.fromisoformat(moment).astimezone():%Y-%m-%d %H:%M}"


def _night_words(one: JobStatus) -> str:
    night = one.last
    if night is None:
        return "none yet"
    if night.finished is None:
        return f"{_local(night.started)}: " + ("not over" if one.going_on else "it was killed")
    totals = ", ".join(f"{count} {outcome}" for outcome, count in night.totals.items())
    words = [f"exit status {night.exit_code}", totals, clean_detail(night.error), night.run]
    return f"{_local(night.started)}: " + ", ".join(filter(None, words))
