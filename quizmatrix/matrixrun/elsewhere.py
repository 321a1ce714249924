"""Runs cells on other hosts (--on): what cannot leave this one, and the way there."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from quizmatrix.core.errors import UsageError
from quizmatrix.model import profile
from quizmatrix.model.options import RunOptions
from quizmatrix.model.spec import OWN_STDIN
from quizmatrix.runs.directory import RunDirectory
from quizmatrix.schedule.places import JobPlace
from quizmatrix.schedule.plan import Plan


def check(options: RunOptions, plan: Plan) -> None:
    """Raise UsageError where a run with --on asks for what only this host has, or its address is wrong.

    Raises DataError where the file with the jobs of a batch system is wrong.
    """
    address = options.conduct.on
    if address is None:
        return
    from quizmatrix.hosts import batchfile, where

    asked = where.parse(address)
    if asked.kind is where.HostsKind.BATCH:
        batchfile.read_options(asked.system, asked.file)
    if found := _local(options, plan):
        raise UsageError(
            f"{found} with --on {address}", cause="that needs this host", next_step="Leave out one of them."
        )


def _local(options: RunOptions, plan: Plan) -> str:
    """The first thing that only this host has; empty if there is none."""
    if options.once.shell:
        return "--shell"
    if options.guest.bind:
        return "--bind"
    if options.guest.stdin == OWN_STDIN:
        return "--stdin -"
    for task in plan.tasks:
        if task.disks is not None:
            return "a matrix that hands disks on"
        if task.cell.suites:
            return f"a folder of {task.cell.suites[0][0]}"
        for use in task.cell.profiles:
            if profile.facts_of(use.name, task.id).debugger:
                return f"-p {use.name}"
            if dict(use.options).get("persist"):
                return f"-p {use.name}:persist"
            if profile.is_users(use.name):
                return f"the profile {use.name}, which is your own,"
    return ""


@asynccontextmanager
async def place(
    options: RunOptions, plan: Plan, directory: RunDirectory, tell: Callable[[str], None]
) -> AsyncIterator[JobPlace | None]:
    """Where the cells run: None for this host. tell: is called with what a user should know.

    Raises UnpreparedError where no other host can be had.
    """
    conduct = options.conduct
    if conduct.on is None:
        yield None
        return
    from quizmatrix.hosts import security, where

    try:
        from quizmatrix.hosts.connecting import Wishes, connected
    except ImportError as error:
        raise where.missing_extra(error) from error
    wishes = Wishes(
        where=where.parse(conduct.on),
        certificates=security.certificates(conduct.certificates),
        most=max((task.cell.shared_limit for task in plan.tasks), default=0) << 20,
        whole_tree=conduct.whole_tree,
        tell=tell,
    )
    async with connected(wishes, directory.folder, directory.results.run) as cluster:
        yield cluster
