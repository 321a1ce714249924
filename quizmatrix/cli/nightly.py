"""`quizmatrix nightly`: a run that starts by itself, and speaks only where something changed."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import anyio
import msgspec

from quizmatrix.cli import again
from quizmatrix.cli import run as run_module
from quizmatrix.cli.nightlyparser import arguments_of_run
from quizmatrix.cli.plan import make_plan
from quizmatrix.core import paths, units
from quizmatrix.core.errors import HostError, QuizmatrixError, UsageError, host_error
from quizmatrix.core.folders import remove_tree
from quizmatrix.core.json import to_json
from quizmatrix.core.process import printable
from quizmatrix.core.text import clean_detail, clean_line
from quizmatrix.model.outcome import EXIT_FAILED, EXIT_NO_VERDICT, EXIT_OK
from quizmatrix.model.result import RunResults
from quizmatrix.model.spec import OWN_STDIN
from quizmatrix.nightly import crontab, lock, systemd
from quizmatrix.nightly import job as jobs
from quizmatrix.nightly.job import Job, Night, NightlyStarter, Standing
from quizmatrix.prepare import selection
from quizmatrix.prepare.selection import checked, whole_number
from quizmatrix.report import outputs
from quizmatrix.report.progress import tell
from quizmatrix.runs import directory, retention
from quizmatrix.runs.history import kept
from quizmatrix.runs.history.kept import RunKind
from quizmatrix.runs.history.record import days_ago

_DAY = 86400.0


def install(args: argparse.Namespace) -> int:
    """Check the command line as `run` would, keep it, and have it run every night."""
    at = checked("--at", args.at, jobs.parse_at)
    name = (
        jobs.check_name(args.job_name)
        if args.job_name
        else jobs.name_of(args.matrix or selection.DEFAULT_MATRIX)
    )
    keep = checked("--keep", args.keep, whole_number(1)) if args.keep else None
    if args.older_than:
        checked("--older-than", args.older_than, units.parse_duration)
    words = arguments_of_run(args.arguments[1:])
    folder = _current_folder()
    of_run = _args_of_run(words, args.command)
    if passed_on := [text for text in of_run.env if "=" not in text]:
        raise UsageError(
            f"--env {passed_on[0]} cannot be passed on at night",
            cause="what is started then has an environment of its own",
            next_step=f"Give it a value, --env {passed_on[0]}=VALUE, or have the command read a file.",
        )
    if of_run.stdin == OWN_STDIN:
        raise UsageError(
            "--stdin - gives nothing at night",
            cause="what is started then has an empty stdin",
            next_step="Name a file: --stdin FILE.",
        )
    _, tasks = run_module.selected_tasks(of_run)
    make_plan(of_run, tasks, None)
    outputs.check(of_run)
    entry, entry_environment = jobs.entry(name)
    job = Job(
        name=name,
        at=at,
        scheduler=_scheduler(args.scheduler),
        arguments=words,
        command=args.command,
        folder=folder,
        environment=jobs.environment(),
        keep=keep,
        older_than=args.older_than,
        entry=entry,
        entry_environment=entry_environment,
    )
    is_new = anyio.run(_locked, lambda: _install(job))
    _say_what_was_installed(job, len(tasks), is_new=is_new)
    return EXIT_OK


def _current_folder() -> str:
    try:
        return os.getcwd()  # noqa: PTH109 - as `run` records it
    except OSError as error:
        raise host_error("name the current folder", error) from error


def _args_of_run(words: list[str], command: list[str] | None) -> argparse.Namespace:
    from quizmatrix.cli.parser import parse

    return parse(["run", *words, "--quiet", *(["--", *command] if command else [])])


def _scheduler(asked: str) -> NightlyStarter:
    """Who is to start it; HostError where nobody can."""
    if asked == NightlyStarter.SYSTEMD or (asked == "auto" and systemd.is_reachable()):
        if not systemd.is_reachable():
            raise HostError(
                "you have no service manager of systemd here",
                cause="`systemctl --user show-environment` fails",
                next_step="--scheduler cron takes the crontab instead.",
            )
        return NightlyStarter.SYSTEMD
    if not crontab.is_there():
        raise HostError(
            "nobody here could start a nightly run",
            cause="there is neither a systemd of yours (`systemctl --user`) nor `crontab`",
            next_step="On Debian: sudo apt-get install cron",
        )
    return NightlyStarter.CRON


async def _locked(action: Callable[[], bool]) -> bool:
    """Two at once would each write back a crontab without the other's lines."""
    async with paths.locked(paths.state_dir() / "nightly" / ".install.lock"):
        return action()


def _install(job: Job) -> bool:
    """Write everything; whether there was none of this name before."""
    is_new = not jobs.path_of(job.name).exists()
    # First of all what may be refused for the words in it.
    if job.scheduler is NightlyStarter.CRON:
        crontab.line_of(job)
    jobs.save(job)
    try:
        if job.scheduler is NightlyStarter.CRON:
            systemd.remove(job.name)
            crontab.install(job)
        else:
            crontab.remove(job.name)
            systemd.install(job)
    except QuizmatrixError:
        if is_new:
            jobs.remove(job.name)
        raise
    return is_new


def _say_what_was_installed(job: Job, cells: int, *, is_new: bool) -> None:
    by = "a line in your crontab" if job.scheduler is NightlyStarter.CRON else "a timer of your systemd"
    print(f"{job.name}: every night at {job.at}, by {by}" + ("" if is_new else " (replaced)"))
    print(f"  {cells} VM{'s' if cells != 1 else ''}: {_words(job)}")
    print(f"  in {clean_line(job.folder)}")
    print(f"  runs kept: {_kept_words(job)}")
    print(f"  try it: quizmatrix nightly run {job.name}")
    if job.scheduler is NightlyStarter.CRON and not crontab.daemon_runs():
        print(f"  {crontab.NO_DAEMON}")
    if job.scheduler is NightlyStarter.SYSTEMD and not systemd.lingers():
        print("  only while you are logged in; always: loginctl enable-linger")


def _words(job: Job) -> str:
    """The command line of `run`."""
    command = ["--", *job.command] if job.command else []
    return clean_line(printable(["quizmatrix", "run", *job.arguments, "--quiet", *command]), 1000)


def _kept_words(job: Job) -> str:
    parts = [f"the newest {job.keep}"] if job.keep else []
    parts += [f"what is not older than {job.older_than}"] if job.older_than else []
    return " and ".join(parts) or "all (--keep N, --older-than T)"


def run(args: argparse.Namespace) -> int:
    """One night; the exit status of its run. UsageError where the last one is still going on."""
    job = jobs.load(args.job)
    os.environ.update(job.environment)
    with lock.held(job):
        began = datetime.now(UTC)
        night = Night(started=began.isoformat(timespec="milliseconds"))
        jobs.keep_night(job, night)
        status, error = EXIT_NO_VERDICT, ""
        kind: RunKind | None = None
        try:
            of_run = _in_its_folder(job)
            kind = again.kind_of(of_run)
            status = run_module.run(of_run)
        except QuizmatrixError as trouble:
            error = str(trouble)
            raise
        finally:
            made = _newest(kind, began) if kind is not None else None
            night = msgspec.structs.replace(
                night,
                finished=datetime.now(UTC).isoformat(timespec="milliseconds"),
                exit_code=status,
                run=made.run if made else "",
                totals=made.totals if made else {},
                error=error,
            )
            try:
                jobs.keep_night(job, night)
            except QuizmatrixError as trouble:
                tell(clean_line(str(trouble)))  # the run has its own verdict
        _remove_old(job, kind)
    return status


def _in_its_folder(job: Job) -> argparse.Namespace:
    try:
        os.chdir(job.folder)
    except OSError as error:
        raise UsageError(
            f"the nightly run {job.name} cannot go to {job.folder}, where it was installed",
            cause=error.strerror or str(error),
            next_step=f"Make it again, or: quizmatrix nightly remove {job.name}",
        ) from error
    args = _args_of_run(job.arguments, job.command)
    args.unattended = True
    return args


def _newest(kind: RunKind, since: datetime) -> RunResults | None:
    """The run that a night made."""
    for _, results in directory.list_runs():
        if results is not None and datetime.fromisoformat(results.started) >= since:
            if kept.kind_of(results) == kind:
                return results
        elif results is not None:
            break
    return None


def _remove_old(job: Job, kind: RunKind) -> None:
    """Remove the job's runs that are not to be kept, as `runs prune` would, and no others.

    What goes wrong there is told, and no fault of the run.
    """
    if job.keep is None and job.older_than is None:
        return
    before = days_ago(units.parse_duration(job.older_than) / _DAY) if job.older_than else None
    for old in retention.old_runs(job.keep or 1, before, lambda results: kept.kind_of(results) == kind):
        try:
            remove_tree(old.folder)
        except QuizmatrixError as error:
            tell(clean_line(str(error)))


class JobStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What `nightly status --json` prints of a job. next: ISO 8601, local time, with its zone."""

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


def status(args: argparse.Namespace) -> int:
    """Print when each job runs next and how the last night went; 1 where one will not run."""
    names = [args.job] if args.job else jobs.names()
    if args.job and args.job not in jobs.names():
        raise jobs.unknown(args.job)
    shown = [_looked_at(name) for name in names]
    if args.json:
        sys.stdout.write(to_json(shown).decode())
    elif not shown:
        print("There are no nightly runs. quizmatrix nightly install MATRIX --at 02:00 -- COMMAND")
    else:
        print("\n\n".join(_told(one) for one in shown))
    return EXIT_FAILED if any(one.trouble for one in shown) else EXIT_OK


def _looked_at(name: str) -> JobStatus:
    try:
        job = jobs.load(name)
    except QuizmatrixError as error:
        return JobStatus(name=name, trouble=str(error))
    by = crontab if job.scheduler is NightlyStarter.CRON else systemd
    try:
        standing = by.standing(job, datetime.now())  # noqa: DTZ005 - a clock on the wall
    except QuizmatrixError as error:
        standing = Standing(trouble=str(error))
    # What the timer or the line needs, and does not tell anybody that it lacks.
    gone = [path for path in (job.entry[0], job.folder) if not Path(path).exists()]
    if not standing.trouble and gone:
        standing = Standing(trouble=f"{gone[0]} is gone: install it again, or remove it")
    return JobStatus(
        name=name,
        at=job.at,
        scheduler=job.scheduler,
        folder=job.folder,
        arguments=job.arguments,
        command=job.command,
        next=standing.next.astimezone().isoformat() if standing.next else None,
        trouble=standing.trouble,
        going_on=lock.holder(job),
        last=jobs.last_night(job),
    )


def _told(one: JobStatus) -> str:
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


def remove(args: argparse.Namespace) -> int:
    """Have a job run no more. Its results stay, and a night that goes on ends by itself."""
    name = jobs.check_name(args.job)

    def everything() -> bool:
        # What is left of one whose file was lost goes, too.
        there = [systemd.remove(name), crontab.remove(name), jobs.remove(name)]
        return any(there)

    if not anyio.run(_locked, everything):
        raise jobs.unknown(name)
    print(f"{name} is not run any more; its runs stay (quizmatrix runs list)")
    return EXIT_OK
