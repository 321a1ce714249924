"""Further guests of one cell: for what a crashed guest did not come to, and for failed tests once more.

A command that heeds the lists of tests that it is given (TestChoice) says so in its output. Only then the
rest goes on in a new guest: the command would else begin anew, and crash anew. Failed tests run again
whatever the command: one that does not heed the lists runs all of its tests, and only those that had failed
count.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import msgspec

from quizmatrix.core import offload, paths, private
from quizmatrix.core.concurrency import in_thread
from quizmatrix.core.errors import QuizmatrixError
from quizmatrix.core.json import to_json
from quizmatrix.model.finding import SplatPolicy
from quizmatrix.model.outcome import Outcome
from quizmatrix.model.result import CellResult
from quizmatrix.model.subtest import SubtestOutcome
from quizmatrix.model.testchoice import TestChoice
from quizmatrix.run import consolelog
from quizmatrix.runs.directory import RESULT
from quizmatrix.schedule.joining import (
    Part,
    bad_names,
    command_seconds,
    joined_result,
    joined_tests,
    with_rerun,
)
from quizmatrix.subtests import reading, running
from quizmatrix.subtests.openzfs import without_mark
from quizmatrix.subtests.selecting import selects_tests

# How many guests of one slice may crash until the rest of it is left.
MOST_CRASHES = 5
# Outcomes of a command that came to its end.
_ENDED = frozenset({Outcome.PASSED, Outcome.FAILED, Outcome.SPLAT})
# Seconds that have to be left of the time limit for another guest.
_LEAST_TIME = 1.0

# Runs one more guest. Arguments: the name of its folder in the cell's, what its command is told of its tests,
# and the seconds that the command may take.
RunGuest = Callable[[str, TestChoice, float], Awaitable[CellResult]]


class FurtherGuests:
    """Runs further guests of one cell after its first."""

    def __init__(
        self,
        folder: Path,
        choice: TestChoice,
        timeout: float,
        run_guest: RunGuest,
        note: Callable[[str], None],
    ) -> None:
        """folder: the cell's. choice: what the first guest's command was told. timeout: of the command, in
        seconds. note: is called with what happens.
        """
        self._folder = folder
        self._choice = choice
        self._timeout = timeout
        self._run_guest = run_guest
        self._note = note

    async def complete(self, first: CellResult, reruns: int, splat: SplatPolicy) -> CellResult:
        """The result of the cell. reruns: how often failed tests run once more, at most."""
        part = await self._part("", first)
        parts, left = await self._go_on([part], "", self._choice)
        tests = joined_tests(parts)
        again: list[Part] = []
        failure = ""
        for number in range(1, reruns + 1):
            wanted = bad_names(tests)
            if not wanted:
                break
            self._note(f"{len(wanted)} of {len(tests)} tests failed, and run once more")
            new = await self._rerun(f"rerun-{number}", wanted)
            if not new:
                break
            again += new
            tests = with_rerun(tests, wanted, new)
        if len(parts) + len(again) == 1:
            return msgspec.structs.replace(first, detail=_joined(first.detail, left))
        if again and not bad_names(tests):
            failure = await self._what_else([*parts, *again], splat)
        paths.write_atomic(self._folder / reading.FILE, to_json(list(tests.values())))
        result = joined_result(parts, tests, again, failure)
        return msgspec.structs.replace(
            result, detail=_joined(result.detail, _words(parts, result.detail), left)
        )

    async def _go_on(self, parts: list[Part], prefix: str, choice: TestChoice) -> tuple[list[Part], str]:
        """The guests that ran until the tests of `choice` had run, and why some of them did not.

        parts: the first one. prefix: of the names of the others.
        """
        parts = list(parts)
        while parts[-1].has_crashed:
            crashed = parts[-1]
            before = {test.name for part in parts[:-1] for test in part.tests}
            lost = [part.lost for part in parts if part.lost]
            is_new = bool(crashed.lost) or any(test.name not in before for test in crashed.tests)
            heeds = selects_tests(self._folder / crashed.name)
            if not heeds or not is_new or len(set(lost)) < len(lost):
                # What began last is unknown, or ended its guest although it was not to run.
                return parts, "what it had not come to did not run" if heeds or len(parts) > 1 else ""
            if len(parts) > MOST_CRASHES:
                return parts, f"{len(parts)} guests crashed: what they had not come to did not run"
            spent = sum(command_seconds(part.result) for part in parts)
            if self._timeout - spent < _LEAST_TIME:
                return parts, "its time was over: what it had not come to did not run"
            ran = dict.fromkeys(test.name for part in parts for test in part.tests)
            rest = msgspec.structs.replace(
                choice, skip=[*choice.skip, *ran, *lost], lost=[*choice.lost, *lost]
            )
            self._note(f"{_end_of(crashed)}: the tests after that run in a new guest")
            name = f"{prefix}rest-{len(parts)}"
            try:
                result = await self._run_guest(name, rest, self._timeout - spent)
            except QuizmatrixError as error:
                return parts, f"what it had not come to did not run: {error}"
            parts.append(await self._part(name, result))
        last = parts[-1].result
        if len(parts) > 1 and last.outcome not in _ENDED:
            return parts, f"of the rest: {last.outcome} ({last.detail})"
        return parts, ""

    async def _rerun(self, name: str, wanted: list[str]) -> list[Part]:
        """The guests in which these tests ran once more."""
        choice = msgspec.structs.replace(self._choice, only=wanted)
        try:
            result = await self._run_guest(name, choice, self._timeout)
        except QuizmatrixError as error:
            self._note(f"its failed tests did not run again: {error}")
            return []
        parts, _ = await self._go_on([await self._part(name, result)], f"{name}-", choice)
        return parts

    async def _part(self, name: str, result: CellResult) -> Part:
        folder = self._folder / name
        if name:
            private.write(folder / RESULT, to_json(result))
        part = Part(name=name, result=result, tests=await in_thread(partial(reading.load, folder)))
        if not part.has_crashed:
            return part
        lost = await in_thread(partial(running.announced, folder / "console.log"))
        has_result = any(lost in (test.name, without_mark(test.name)) for test in part.tests)
        return msgspec.structs.replace(part, lost="" if has_result else lost)

    async def _what_else(self, parts: list[Part], splat: SplatPolicy) -> str:
        """What else than failed tests speaks against a pass, as text."""
        findings = [one for part in parts for one in part.result.findings if not one.allowed]
        if findings and splat is SplatPolicy.FAIL:
            return findings[0].title
        return await offload.call(other_failure, str(self._folder), returns=str)


def other_failure(folder: str) -> str:
    """Why a command has failed even where each failed test passes when it runs again. Raises OSError."""
    cell = Path(folder)
    console = cell / "console.log"
    is_whole = not console.exists() or console.stat().st_size < consolelog.LIMIT
    found = reading.read(cell / "stdout", console, console_is_whole=is_whole)
    if found.suite_end.is_unfinished:
        return "its tests did not come to their end"
    passed = [
        msgspec.structs.replace(test, outcome=SubtestOutcome.PASSED) if test.outcome.is_bad else test
        for test in found.tests
    ]
    return msgspec.structs.replace(found, tests=passed).failure


def _end_of(part: Part) -> str:
    where = f" in {part.lost}" if part.lost else ""
    return f"{part.result.outcome}{where} ({part.result.detail})"


def _words(parts: list[Part], detail: str) -> str:
    """Which tests ended their guests, as far as the detail does not say it, and in how many the rest ran."""
    lost = [part.lost for part in parts if part.lost and f"while {part.lost} ran" not in detail]
    words = [f"while {', '.join(lost)} ran"] if lost else []
    if (more := len(parts) - 1) > 0:
        words.append(f"the rest ran in {more} more guest{'s' if more > 1 else ''}")
    return "; ".join(words) if more else ""


def _joined(*words: str) -> str:
    return "; ".join(filter(None, words))
