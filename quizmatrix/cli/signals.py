"""Signal handling: the first signal stops the VMs, the second one exits at once."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable

# Sent by Ctrl-C, by a service manager, and by a terminal that is closed.
_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


async def watch_signals(stop: Callable[[], None]) -> None:
    """Call `stop` at the first signal, and exit at the second; the VMs end with this process."""
    import anyio

    from quizmatrix.model.outcome import EXIT_INTERRUPTED

    # Signals that are ignored stay ignored: nohup(1) ignores SIGHUP.
    wanted = [number for number in _STOPPING if signal.getsignal(number) is not signal.SIG_IGN]
    stopping = False
    with anyio.open_signal_receiver(*wanted) as signals:
        async for _ in signals:
            if stopping:
                if sys.stderr.isatty():
                    os.write(sys.stderr.fileno(), b"\x1b[?25h")  # the live table hid the cursor
                os._exit(EXIT_INTERRUPTED)
            stopping = True
            stop()
