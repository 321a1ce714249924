"""Runs a command with released kernels until it is known with which one its outcome changes."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import anyio
import msgspec

from quizmatrix.bisect.search import Side, VersionSearch
from quizmatrix.build.uptodate import bring_up_to_date
from quizmatrix.core import process
from quizmatrix.core.concurrency import Watch, task_group
from quizmatrix.core.text import clean_detail, clean_line
from quizmatrix.core.units import format_seconds
from quizmatrix.kernel import released
from quizmatrix.model.arch import Arch
from quizmatrix.model.events import CellFinished, CellNote, Event
from quizmatrix.model.options import RunOptions, with_values
from quizmatrix.model.outcome import EXIT_INTERRUPTED, EXIT_NO_VERDICT, EXIT_OK, Outcome
from quizmatrix.model.result import CellResult
from quizmatrix.model.task import in_each
from quizmatrix.prepare import selection
from quizmatrix.prepare.preparer import Policy, Preparer
from quizmatrix.prepare.selection import Selection
from quizmatrix.report import grid
from quizmatrix.report.progress import Screen, tell
from quizmatrix.runs import directory
from quizmatrix.runs.directory import RunDirectory
from quizmatrix.schedule import command_stdin
from quizmatrix.schedule.plan import Plan
from quizmatrix.schedule.planning import make_plan
from quizmatrix.schedule.scheduler import Scheduler


def bisect(
    options: RunOptions, kernels: tuple[str, str], arch: Arch, command: list[str], watch: Watch
) -> int:
    """Say with which release between two kernels a command begins to fail, or to pass; 0 where that is found.

    options: of the guests, which are run as `jobs` says. watch: see Watch.
    """
    ends = _selected(options, kernels, arch, command).cells
    # What is wrong with the options is told before anybody is asked.
    make_plan(options, in_each(ends, command))
    specs = (ends[0].kernel_spec, ends[1].kernel_spec)
    tell("asking what was released")
    found = anyio.run(released.between, specs, arch)
    # As they were typed: `6.5`, not `debian:6.5`.
    typed = dict(zip(specs, kernels, strict=True))
    is_bare = ":" not in "".join(kernels)
    names = [typed.get(kernel, kernel.partition(":")[2] if is_bare else kernel) for kernel in found]
    chosen = _selected(options, names, arch, command)
    if chosen.taken is not None and chosen.taken.sentence:
        tell(chosen.taken.sentence)
    return _Bisection(options, chosen, command, watch).run()


def _selected(options: RunOptions, kernels: Sequence[str], arch: Arch, command: list[str]) -> Selection:
    """A cell for each kernel, in their order, with what the command needs."""
    ids = [f"{kernel}-{arch.name}" for kernel in kernels]
    chosen = selection.selected_for(with_values(options, {"only": ids}), command)
    found = {cell.id: cell for cell in chosen.cells}
    return msgspec.structs.replace(chosen, cells=[found[one] for one in ids])


class _Bisection:
    """One search, into one run directory."""

    def __init__(self, options: RunOptions, chosen: Selection, command: list[str], watch: Watch) -> None:
        """chosen: a cell for each kernel."""
        self._options = options
        self._cells = cells = chosen.cells
        self._taken = chosen.taken
        self._command = command
        self._watch = watch
        self._plan = make_plan(options, in_each(cells, command))
        self._at_a_time = self._plan.jobs or process.usable_cpus()
        conduct = options.conduct
        self._preparer = Preparer(Policy.asked(conduct))
        self._results: dict[str, CellResult] = {}
        self._interrupted = False

    def run(self) -> int:
        """Search, say what was found, and write everything."""
        run_directory = directory.create(None, self._command, tasks=[cell.id for cell in self._cells])
        self._plan = command_stdin.with_stdin(self._options, self._plan, run_directory.folder, None)
        last = len(self._cells) - 1
        print(f"{last + 1} kernels, {self._cells[0].kernel} to {self._cells[last].kernel}", flush=True)
        search = self._search(run_directory)
        status = EXIT_NO_VERDICT
        if self._interrupted:
            status = EXIT_INTERRUPTED
        elif search is not None:
            status = EXIT_OK
            print(f"\n{self._answer(search)}")
        else:
            print(f"\n{self._why_not()}")
        run_directory.finish(
            [self._results[cell.id] for cell in self._cells if cell.id in self._results], status
        )
        print(f"tested {len(self._results)} of {len(self._cells)}; logs: {run_directory.folder}", flush=True)
        if run_directory.error is not None:
            tell(clean_line(run_directory.error.render()))
        return status

    def _search(self, run_directory: RunDirectory) -> VersionSearch | None:
        """All rounds; None where the ends do not differ, or it was interrupted."""
        ends = [0, len(self._cells) - 1]
        self._round(ends, run_directory)
        if self._interrupted or self._side(ends[0]) == self._side(ends[1]) or None in map(self._side, ends):
            return None
        search = VersionSearch(len(self._cells))
        first = self._side(0)
        while wanted := search.next(self._at_a_time):
            self._round(wanted, run_directory)
            if self._interrupted:
                return None
            for at in wanted:
                side = self._side(at)
                told = Side.UNTESTABLE if side is None else Side.FIRST if side is first else Side.LAST
                search.tell(at, told)
        return search

    def _side(self, at: int) -> bool | None:
        """Whether the command passed; None where that could not be tested."""
        outcome = self._results[self._cells[at].id].outcome
        return outcome is Outcome.PASSED if outcome.is_verdict else None

    def _round(self, wanted: list[int], run_directory: RunDirectory) -> None:
        """Test some kernels; in the work tree of what the command needs, that is built for them first."""
        tasks = [self._plan.tasks[at] for at in wanted]
        cells = [task.cell for task in tasks]
        unbuilt = bring_up_to_date(self._options, self._taken, cells, self._command, None)
        plan = msgspec.structs.replace(self._plan, tasks=tasks, unbuilt=unbuilt)
        anyio.run(self._run_round, plan, run_directory)

    async def _run_round(self, plan: Plan, run_directory: RunDirectory) -> None:
        scheduler = Scheduler(plan, run_directory, self._preparer, self._see)

        def stop() -> None:
            self._interrupted = True
            scheduler.stop()

        async with task_group() as group:
            group.start_soon(self._watch, stop)
            for result in await scheduler.run():
                self._results[result.cell] = result
            group.cancel_scope.cancel()

    def _see(self, event: Event) -> None:
        if isinstance(event, CellNote) and event.cell:
            tell(clean_line(f"{event.cell}: {event.text}"))
        elif isinstance(event, CellFinished):
            result = event.result
            seconds = result.timings.command
            parts = [f"{result.kernel:<12}", grid.verdict_words(result)]
            parts += [format_seconds(seconds)] if seconds is not None else []
            parts += [clean_detail(result.detail)] if result.outcome is not Outcome.FAILED else []
            Screen(sys.stdout).print("  ".join(parts).rstrip())

    def _answer(self, search: VersionSearch) -> str:
        before, after = (self._results[self._cells[at].id] for at in (search.before, search.after))
        verb = "passes" if after.outcome is Outcome.PASSED else "fails"
        known = f"{before.kernel} {grid.verdict_words(before)}, {after.kernel} {grid.verdict_words(after)}"
        untested = [self._results[self._cells[at].id] for at in search.untestable()]
        if not untested:
            return f"{after.kernel} is the first that {verb}: {known}."
        named = ", ".join(f"{result.kernel} ({result.outcome})" for result in untested)
        return (
            f"After {before.kernel}, and with {after.kernel} at the latest, it {verb}: {known}; "
            f"what lies between could not be tested: {named}."
        )

    def _why_not(self) -> str:
        first, last = (self._results[self._cells[at].id] for at in (0, len(self._cells) - 1))
        for result in (first, last):
            if not result.outcome.is_verdict:
                return f"There is nothing to go by: {result.kernel} could not be tested."
        return f"There is nothing to find: {first.kernel} and {last.kernel} end alike."
