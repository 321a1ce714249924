"""Shows a run while it goes on: a live table on a terminal, one line per change elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TextIO, cast

import anyio
import msgspec

from quizmatrix.core.errors import ReaderGoneError
from quizmatrix.core.streams import Canvas
from quizmatrix.core.text import clean_line, first_of, is_screen, wants_colour
from quizmatrix.core.units import format_seconds
from quizmatrix.model.events import CellConsole, CellFinished, CellNote, CellReached, Event
from quizmatrix.model.result import CellResult
from quizmatrix.model.stage import Stage
from quizmatrix.report.colour import paint
from quizmatrix.report.grid import verdict_words

if TYPE_CHECKING:
    from rich.console import RenderableType

# After so many seconds without a line, `Lines` prints which cells are still running.
HEARTBEAT = 60.0
# How many cells it then names.
_MOST_BUSY = 10
# Seconds between two updates of the live table.
_FRAME = 0.25

# Stages for which `Lines` prints a line; the others are short.
_NEWS = frozenset({Stage.BOOTING, Stage.RUNNING})


class Progress(Protocol):
    """Shows a run while it goes on."""

    def see(self, event: Event) -> None:
        """Show the next event."""

    async def keep(self) -> None:
        """Update what is shown, until cancelled."""


def _cell_of(event: Event) -> str:
    return event.result.cell if isinstance(event, CellFinished) else event.cell


class CellState(msgspec.Struct, kw_only=True):
    """The state of a cell.

    since: when its stage began, in monotonic seconds. host: the other host that runs it. line: the last
    console line.
    """

    cell: str
    stage: Stage | None = None
    since: float = 0.0
    attempt: int = 1
    host: str = ""
    line: str = ""
    result: CellResult | None = None

    def take(self, event: Event) -> None:
        """Update the state from an event of this cell."""
        if isinstance(event, CellReached):
            self.stage, self.attempt, self.host = event.stage, event.attempt, event.host
            self.since = time.monotonic()
            self.line = ""
        elif isinstance(event, CellNote):
            self.line = event.text
        elif isinstance(event, CellConsole):
            self.line = event.line
        else:
            self.result = event.result

    @property
    def words(self) -> str:
        """`running`, `booting on zed, attempt 2`."""
        stage = str(self.stage or "waiting")
        where = f"{stage} on {clean_line(self.host)}" if self.host else stage
        return where if self.attempt == 1 else f"{where}, attempt {self.attempt}"


class Screen:
    """An output stream. If its reader goes away (terminal closed, broken pipe), nothing more is written."""

    def __init__(self, stream: TextIO) -> None:
        """Writes to `stream`."""
        self.stream = stream
        self.colour = wants_colour(stream)
        self._gone = False

    def print(self, text: str) -> None:
        """Write a line, unless the reader is gone."""
        self.do(lambda: print(text, file=self.stream, flush=True))

    def do(self, action: Callable[[], object]) -> None:
        """Call `action`, which writes to the stream, unless the reader is gone."""
        if not self._gone:
            try:
                action()
            except (OSError, ValueError, ReaderGoneError):
                self._gone = True


def tell(text: str) -> None:
    """Print a message on stderr, after `quizmatrix: `."""
    Screen(sys.stderr).print(f"quizmatrix: {text}")


class Silent:
    """For one cell that behaves like a local command: shows only notes, which explain why it takes long."""

    def __init__(self, screen: Screen) -> None:
        """screen: where notes are printed."""
        self._screen = screen

    def see(self, event: Event) -> None:
        """Print a note, such as that a kernel is being fetched; other events are not shown."""
        if isinstance(event, CellNote) and event.cell:
            self._screen.print(f"quizmatrix: {clean_line(event.text)}")

    async def keep(self) -> None:
        """Wait until cancelled; nothing that is shown has to be updated."""
        await anyio.sleep_forever()


class Quiet:
    """Shows nothing."""

    def see(self, event: Event) -> None:
        """Do nothing."""

    async def keep(self) -> None:
        """Wait until cancelled."""
        await anyio.sleep_forever()


class Lines:
    """Prints a line per change and, after a while without one, which cells are still running."""

    def __init__(self, screen: Screen, cells: list[str], *, verbose: bool = False) -> None:
        """verbose: print every stage and every console line."""
        self._screen = screen
        self._verbose = verbose
        self._states = {cell: CellState(cell=cell) for cell in cells}
        self._began = time.monotonic()
        self._spoke = self._began

    def see(self, event: Event) -> None:
        """Print a line, if the event is worth one."""
        if isinstance(event, CellNote) and not event.cell:
            self._say(clean_line(event.text))
            return
        cell = _cell_of(event)
        state = self._states[cell]
        state.take(event)
        if isinstance(event, CellFinished):
            self._say(f"{cell}: {self._end(event.result)}")
        elif isinstance(event, CellNote):
            self._say(f"{cell}: {clean_line(event.text)}")
        elif isinstance(event, CellReached) and (self._verbose or event.stage in _NEWS):
            self._say(f"{cell}: {state.words}")
        elif isinstance(event, CellConsole) and self._verbose:
            self._say(f"{cell}: console: {clean_line(event.line)}")

    def _end(self, result: CellResult) -> str:
        words = paint(verdict_words(result), result.outcome, self._screen.colour)
        seconds = result.timings.command
        return words + (f", {format_seconds(seconds)}" if seconds is not None else "")

    async def keep(self) -> None:
        """After each HEARTBEAT seconds without a line, print which cells are still running."""
        while True:
            wait = self._spoke + HEARTBEAT - time.monotonic()
            if wait > 0:
                await anyio.sleep(wait)
                continue
            now = time.monotonic()
            states = [state for state in self._states.values() if state.result is None and state.stage]
            states.sort(key=lambda state: state.since)
            busy = [
                f"{state.cell} ({state.words} {format_seconds(now - state.since)})"
                for state in states
                if state.stage is not Stage.WAITING
            ]
            waiting = len(states) - len(busy)
            words = [
                first_of(busy, _MOST_BUSY) if busy else "",
                f"{waiting} waiting for room" if waiting else "",
            ]
            self._say(f"still at it: {'; '.join(filter(None, words))}")

    def _say(self, text: str) -> None:
        self._spoke = time.monotonic()
        self._screen.print(f"[{self._spoke - self._began:7.1f}s] {text}")


class LiveTable:
    """A table on a terminal, redrawn in place: cell, phase, time, last line."""

    def __init__(self, screen: Screen, cells: list[str]) -> None:
        """screen: has to be a terminal."""
        from rich.console import Console
        from rich.live import Live

        self._screen = screen
        self._states = {cell: CellState(cell=cell) for cell in cells}
        self._began = time.monotonic()
        console = Console(file=cast(TextIO, Canvas(screen.stream)), highlight=False)
        self._height = console.size.height
        self._live = Live(
            console=console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def see(self, event: Event) -> None:
        """Keep the event for the next update; print a note on the whole run above the table."""
        if isinstance(event, CellNote) and not event.cell:
            text = clean_line(event.text)
            self._screen.do(lambda: self._live.console.print(text, markup=False))
            return
        self._states[_cell_of(event)].take(event)

    async def keep(self) -> None:
        """Redraw the table until cancelled, then remove it; the report is printed in its place."""
        self._screen.do(self._live.start)
        try:
            while True:
                self._screen.do(lambda: self._live.update(self._picture(), refresh=True))
                await anyio.sleep(_FRAME)
        finally:
            self._screen.do(self._live.stop)

    def _picture(self) -> RenderableType:
        from rich.table import Table
        from rich.text import Text

        now = time.monotonic()
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), expand=True)
        table.add_column("cell", no_wrap=True)
        table.add_column("phase", no_wrap=True)
        table.add_column("time", no_wrap=True, justify="right")
        table.add_column("last line", no_wrap=True, ratio=1, overflow="ellipsis")
        # Running cells come first; cells that do not fit on the screen are only counted.
        states = sorted(self._states.values(), key=_sort_key)
        room = max(3, self._height - 4)
        for state in states[:room]:
            if state.result is not None:
                words = Text.from_ansi(paint(verdict_words(state.result), state.result.outcome, True))
                seconds = state.result.timings.command
                line = state.result.detail
            else:
                words = Text(state.words, style="bold" if state.stage is Stage.RUNNING else "")
                seconds = now - state.since if state.stage else None
                line = state.line
            shown = format_seconds(seconds) if seconds is not None else ""
            # As Text, since rich reads brackets in a str as markup.
            table.add_row(Text(clean_line(state.cell)), words, shown, Text(clean_line(line), style="dim"))
        ended = sum(state.result is not None for state in states)
        more = f", {len(states) - room} not shown" if len(states) > room else ""
        table.caption = f"{ended} of {len(states)} cells, {format_seconds(now - self._began)}{more}"
        table.caption_justify = "left"
        return table


def _sort_key(state: CellState) -> int:
    """The sort key of the live table: running cells first, then waiting, failed and passed ones."""
    if state.result is not None:
        return 3 if state.result.is_as_expected else 2
    return 1 if state.stage in (None, Stage.WAITING) else 0


def choose(cells: list[str], *, quiet: bool, verbose: bool) -> Progress:
    """Choose how a run of these cells is shown on stderr."""
    screen = Screen(sys.stderr)
    if quiet:
        return Quiet()
    if verbose:
        return Lines(screen, cells, verbose=True)
    if len(cells) == 1:
        return Silent(screen)
    can_draw = is_screen(screen.stream)
    return LiveTable(screen, cells) if can_draw else Lines(screen, cells)
