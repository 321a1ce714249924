"""Carries out a run: runs its tasks, shows progress, and writes results, reports and exit status."""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path

import anyio
import msgspec

from quizmatrix.core import process
from quizmatrix.core.concurrency import Watch, task_group
from quizmatrix.core.errors import HostError, QuizmatrixError
from quizmatrix.core.passon import pass_on_to
from quizmatrix.matrixrun import elsewhere
from quizmatrix.model.events import CellNote
from quizmatrix.model.options import RunRequest
from quizmatrix.model.outcome import EXIT_BROKEN_PIPE, EXIT_NO_VERDICT, Outcome
from quizmatrix.model.result import CellResult
from quizmatrix.prepare import compiling, currentfolder
from quizmatrix.prepare.preparer import Policy, Preparer
from quizmatrix.report import grid, outputs, progress
from quizmatrix.report.progress import Progress
from quizmatrix.report.runhistory import RunHistory, sentence
from quizmatrix.run import runlayer
from quizmatrix.run.stdin import OwnSource
from quizmatrix.runs.directory import RunDirectory
from quizmatrix.runs.rerun import Choice
from quizmatrix.schedule.attempts import not_run
from quizmatrix.schedule.places import JobPlace
from quizmatrix.schedule.plan import Plan
from quizmatrix.schedule.scheduler import Scheduler


class Runner:
    """One run, from its plan to its exit status."""

    def __init__(
        self,
        request: RunRequest,
        plan: Plan,
        run_directory: RunDirectory,
        history: RunHistory,
        choice: Choice,
        source: OwnSource | None,
        watch: Watch,
    ) -> None:
        """source: this process's stdin, where the command reads it. watch: see matrixrun.run."""
        self._request = request
        self._plan = plan
        self._directory = run_directory
        self._history = history
        self._choice = choice
        self._source = source
        self._watch = watch
        self._interrupted = False
        self._reader_is_gone = False
        self._began = time.monotonic()

    @property
    def _is_local(self) -> bool:
        """Whether a single cell behaves like a local command. At night, only changes are printed instead."""
        return not (outputs.use_stdout(self._request.options.results) or self._request.unattended)

    def run(self) -> int:
        """Run, report, and write everything."""
        from quizmatrix.report import ending

        options = self._request.options.results
        shown = progress.choose(
            [task.id for task in self._plan.tasks], quiet=options.quiet, verbose=options.verbose
        )
        results = self._history.mark_flaky(anyio.run(self._conduct, shown))
        for result in results:
            if result.flaky:
                self._directory.revise(result)
        # Only the cells that were run now are judged; cells that were not run again had ended as expected.
        judged = self._choice.merged(results) if self._choice.is_resumed else results
        status = grid.exit_status(judged, interrupted=self._interrupted)
        results = self._choice.merged(results)
        changed = None
        if options.compares_with_last:
            now = msgspec.structs.replace(self._directory.results, cells=results)
            changed = self._history.since_last(now, self._directory.folder)
        if not self._interrupted and options.counts_only_regressions:
            from quizmatrix.report import news

            status = news.status_of_news(status, changed, judged)
        if self._reader_is_gone and status == EXIT_NO_VERDICT:
            status = EXIT_BROKEN_PIPE
        self._directory.finish(results, status)
        self._history.record(self._directory)
        try:
            if len(results) == 1 and self._is_local:
                ending.print_single(results[0], self._directory.folder, options)
            else:
                ending.print_run(self._directory, options, changed, time.monotonic() - self._began)
            self._write_reports()
            if options.coverage is not None and self._interrupted:
                progress.tell("--coverage: the run was interrupted, so there is no page")
            elif options.coverage is not None and any(result.outcome.is_verdict for result in results):
                self._write_coverage(Path(options.coverage))
        finally:  # also if our output has no reader any more
            if options.on_finish is not None:
                from quizmatrix.matrixrun import hook

                hook.run_on_finish(options.on_finish, self._directory.results, self._directory.folder)
        return status

    async def _conduct(self, shown: Progress) -> list[CellResult]:
        conduct = self._request.options.conduct
        async with contextlib.AsyncExitStack() as stack:
            try:
                place = await stack.enter_async_context(
                    elsewhere.place(
                        self._request.options,
                        self._plan,
                        self._directory,
                        lambda text: self._note(shown, text),
                    )
                )
            except QuizmatrixError as error:
                return [not_run(task, Outcome.UNPREPARED, error.in_full) for task in self._plan.tasks]
            builds = place is not None and self._request.options.hosts.build_on is not None
            policy = Policy.asked(conduct, boots_here=place is None)
            preparer = Preparer(policy, elsewhere=place.build if place and builds else None)
            return await self._schedule(preparer, place, shown)

    async def _schedule(
        self, preparer: Preparer, place: JobPlace | None, shown: Progress
    ) -> list[CellResult]:
        scheduler = Scheduler(self._plan, self._directory, preparer, shown.see, place=place)
        if self._choice.is_single and self._is_local:

            def on_gone() -> None:
                self._reader_is_gone = True
                scheduler.stop()

            scheduler.pass_on(
                stdout=pass_on_to(sys.stdout.fileno(), on_gone),
                stderr=pass_on_to(sys.stderr.fileno(), on_gone),
            )
        if self._source is not None:
            scheduler.take_stdin(self._source)

        def interrupt() -> None:
            self._interrupted = True
            scheduler.stop()

        async with task_group() as group:
            group.start_soon(self._watch, interrupt)
            group.start_soon(shown.keep)
            self._warn_of_what_the_guest_lacks(shown)
            self._say_what_is_compiled(shown)
            results = await scheduler.run()
            group.cancel_scope.cancel()
        return results

    def _say_what_is_compiled(self, shown: Progress) -> None:
        """Say what has to be compiled before all cells can boot, and about how long that takes here."""
        if self._request.options.hosts.build_on is not None:
            return
        cells = [task.cell for task in self._plan.tasks if not task.cell.skipped]
        work = compiling.for_guests(cells, offline=self._request.options.conduct.offline)
        self._note(shown, compiling.sentence(work, process.usable_cpus()))

    def _note(self, shown: Progress, text: str | None) -> None:
        """Show a note that concerns the whole run."""
        tasks = self._plan.tasks
        if text is not None:
            shown.see(CellNote(cell=tasks[0].id if len(tasks) == 1 else "", text=text))

    def _warn_of_what_the_guest_lacks(self, shown: Progress) -> None:
        """Warn of files and modules that the command names and the guest lacks, before it fails."""
        try:
            here = Path.cwd()
        except OSError:  # the current folder was removed
            here = None
        tasks = self._plan.tasks
        if not tasks:
            return  # a resumed run of which all cells had ended
        is_hidden = self._request.options.guest.no_work_tree
        if (
            here is not None
            and self._plan.guest.work_tree is None
            and currentfolder.uses_files_in(here, tasks[0].command, is_hidden=is_hidden)
        ):
            reason = "as asked for" if is_hidden else runlayer.why_not_shown(here)
            text = f"the current folder {here} is not shown to the guest, {reason}"
            shown.see(CellNote(cell=tasks[0].id, text=text))

    def _write_coverage(self, target: Path) -> None:
        """Write the page of the lines that ran. Errors are only printed, as those of reports."""
        from quizmatrix.coverage import report

        is_quiet = self._request.options.results.quiet
        tell = progress.tell if sys.stderr.isatty() and not is_quiet else lambda _said: None
        try:
            said = anyio.run(report.write, self._directory.folder, self._directory.results, target, tell)
        except QuizmatrixError as error:
            progress.tell(f"--coverage: {error.render()}")
            return
        except Exception as error:
            # As a bug in a report, it must not change the run's exit status.
            progress.tell(f"--coverage: cannot write {target}: internal error: {error!r}")
            return
        for line in said if not is_quiet else ():
            progress.tell(line)

    def _write_reports(self) -> None:
        """Write the reports asked for. Errors are only printed; they do not change the exit status."""
        options = self._request.options.results
        errors: list[HostError | None] = [self._directory.error]
        if outputs.are_wanted(options):
            from quizmatrix.report.formats.source import ReportSource
            from quizmatrix.report.formats.source import load as load_source

            folder, source = self._directory.folder, None
            if self._directory.error is None:
                with contextlib.suppress(QuizmatrixError):
                    source = load_source(folder)
            # If the directory cannot be read (full disk, folder removed), the results come from memory.
            source = source or ReportSource(folder=folder, results=self._directory.results)
            errors += outputs.write(options, source)
            errors.append(outputs.add_to_job_summary(source))
        for error in filter(None, errors):
            progress.tell(error.render())
        if self._history.error is not None:
            progress.tell(sentence(self._history.error))
