"""Installs and removes nightly jobs: checks the options, saves the job, and adds it to systemd or cron."""

from __future__ import annotations

from collections.abc import Callable

import anyio

from quizmatrix.core import paths
from quizmatrix.core.errors import HostError, QuizmatrixError, UsageError
from quizmatrix.core.process import printable
from quizmatrix.core.text import clean_line
from quizmatrix.model.options import RunOptions
from quizmatrix.model.spec import OWN_STDIN
from quizmatrix.nightly import crontab, systemd
from quizmatrix.nightly import job as jobs
from quizmatrix.nightly.job import Job, NightlyStarter
from quizmatrix.prepare.selection import selected_tasks
from quizmatrix.report import outputs
from quizmatrix.schedule.planning import make_plan


def check(options: RunOptions, command: list[str] | None) -> int:
    """The number of VMs that a night starts.

    Raises UsageError where `run` would refuse the options, or where they need a person's shell or stdin.
    """
    if passed_on := [text for text in options.guest.env if "=" not in text]:
        raise UsageError(
            f"--env {passed_on[0]} cannot be passed on at night",
            cause="a nightly run does not have the environment of this shell",
            next_step=f"Give it a value, --env {passed_on[0]}=VALUE, or have the command read a file.",
        )
    if options.guest.stdin == OWN_STDIN:
        raise UsageError(
            "--stdin - gives nothing at night",
            cause="a nightly run has an empty stdin",
            next_step="Name a file: --stdin FILE.",
        )
    _, tasks = selected_tasks(options, command)
    make_plan(options, tasks)
    outputs.check(options.results)
    return sum(not task.cell.skipped for task in tasks)


def choose_scheduler(asked: str) -> NightlyStarter:
    """Choose between cron and systemd. Raises HostError where this host lacks the wanted one, or both."""
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
            "nothing on this host can start a nightly run",
            cause="there is neither a systemd of yours (`systemctl --user`) nor `crontab`",
            next_step="On Debian: sudo apt-get install cron",
        )
    return NightlyStarter.CRON


def install(job: Job) -> bool:
    """Save a job and add it to cron or systemd; returns whether its name is new."""
    return anyio.run(_locked, lambda: _install(job))


def remove(name: str) -> None:
    """Remove a job. Its results stay, and a night that is going on is not stopped.

    Raises UsageError where there is no job of this name.
    """
    jobs.check_name(name)

    def everything() -> bool:
        # All three are tried, so that the timer of a job whose file is lost is removed, too.
        there = [systemd.remove(name), crontab.remove(name), jobs.remove(name)]
        return any(there)

    if not anyio.run(_locked, everything):
        raise jobs.unknown(name)


async def _locked(action: Callable[[], bool]) -> bool:
    """Run `action` under a lock: two processes that edit the crontab at once would lose one's lines."""
    async with paths.locked(paths.state_dir() / "nightly" / ".install.lock"):
        return action()


def _install(job: Job) -> bool:
    """Write the job, and its entry or units; returns whether its name is new."""
    is_new = not jobs.path_of(job.name).exists()
    # Checked before anything is written.
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


def say_what_was_installed(job: Job, cells: int, *, is_new: bool) -> None:
    """Print what a job runs, when and where, and warnings. cells: the number of VMs of a night."""
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
    """The `quizmatrix run` command line of a job."""
    command = ["--", *job.command] if job.command else []
    return clean_line(printable(["quizmatrix", "run", *job.arguments, "--quiet", *command]), 1000)


def _kept_words(job: Job) -> str:
    parts = [f"the newest {job.keep}"] if job.keep else []
    parts += [f"what is not older than {job.older_than}"] if job.older_than else []
    return " and ".join(parts) or "all (--keep N, --older-than T)"
