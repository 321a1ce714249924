"""Runs cells on other hosts (--on): what cannot leave this one, and the way there."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from quizmatrix.core.errors import UsageError
from quizmatrix.model import profile
from quizmatrix.model.options import RunOptions
from quizmatrix.model.spec import OWN_STDIN
from quizmatrix.model.task import Task
from quizmatrix.runs.directory import RunDirectory
from quizmatrix.schedule.plan import Plan

if TYPE_CHECKING:
    from quizmatrix.hosts.cluster import Cluster
    from quizmatrix.hosts.sharedstore import SharedStore


def check(options: RunOptions, plan: Plan) -> None:
    """Raise UsageError where a run with --on asks for what only this host has, or its address is wrong.

    Raises DataError where the file with the jobs of a batch system is wrong.
    """
    address = options.hosts.on
    if address is None:
        if options.hosts.build_on is not None:
            raise UsageError(
                "--build-on workers needs --on",
                next_step="--on says where they are; without it, leave it out.",
            )
        return
    from quizmatrix.hosts import batchfile, where

    asked = where.parse(address)
    if asked.kind is where.HostsKind.BATCH:
        batchfile.read_options(asked.system, asked.file)
    if options.hosts.store is not None:
        _shared_store(options.hosts.store)
    if found := _local(options, plan):
        raise UsageError(
            f"{found} with --on {address}", cause="that needs this host", next_step="Leave out one of them."
        )


def _shared_store(text: str) -> SharedStore:
    """What --store names. Raises UsageError where it cannot be."""
    from quizmatrix.hosts import sharedstore, where

    try:
        return sharedstore.SharedStore(sharedstore.absolute(text))
    except ImportError as error:
        raise where.missing_extra(error) from error


def _local(options: RunOptions, plan: Plan) -> str:
    """The first thing that only this host has; empty if there is none."""
    if options.once.shell:
        return "--shell"
    if options.guest.bind:
        return "--bind"
    if options.guest.stdin == OWN_STDIN:
        return "--stdin -"
    for task in plan.tasks:
        for use in task.cell.profiles:
            if profile.facts_of(use.name, task.id).debugger:
                return f"-p {use.name}"
            if dict(use.options).get("persist"):
                return f"-p {use.name}:persist"
            own = profile.own_without_host_half([use.name])
            if profile.is_users(use.name) and not own:
                return f"your profile {use.name}, which has a host half,"
    return ""


def _size_of_disks(task: Task) -> int:
    """Of the disks that it hands on, in MiB."""
    return task.disks.count * task.disks.size if task.disks else 0


@asynccontextmanager
async def place(
    options: RunOptions, plan: Plan, directory: RunDirectory, tell: Callable[[str], None]
) -> AsyncIterator[Cluster | None]:
    """Where the cells run: None for this host. tell: is called with what a user should know.

    Raises UnpreparedError where no other host can be had.
    """
    hosts = options.hosts
    if hosts.on is None:
        yield None
        return
    from quizmatrix.hosts import security, where

    try:
        from quizmatrix.hosts.connecting import Wishes, connected
    except ImportError as error:
        raise where.missing_extra(error) from error
    wishes = Wishes(
        where=where.parse(hosts.on),
        certificates=security.certificates(hosts.certificates),
        most=max((task.cell.shared_limit + _size_of_disks(task) for task in plan.tasks), default=0) << 20,
        whole_tree=hosts.whole_tree,
        store=_shared_store(hosts.store) if hosts.store is not None else None,
        tell=tell,
    )
    async with connected(wishes, directory.folder, directory.results.run) as cluster:
        yield cluster
