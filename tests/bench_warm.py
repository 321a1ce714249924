"""What restoring a guest saves over booting it: rows of `make bench`; alone, `python -m tests.bench_warm`."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import anyio
import msgspec
from tabulate import tabulate

from quizmatrix.core import paths
from quizmatrix.model.spec import CellSpec, Share
from quizmatrix.run import headstart, runlayer, vm
from quizmatrix.run.channel import Control
from quizmatrix.run.ends import CONTROL, QMP
from quizmatrix.run.start import starting
from tests.bench import (
    DEBIAN,
    QUIZMATRIX,
    against_bare_qemu,
    debian_image,
    interleaved,
    row,
    run_in,
    shell_start,
    shell_words,
)

BUILT = [f"debian-source:6.1-{arch}" for arch in ("x86_64", "s390x", "ppc64")]
# By cell, the largest part of a cold start's wall time that a warm one may take, and the seconds.
TARGETS = {
    "6.1-x86_64": (0.2, 0.5),
    "6.12-x86_64": (0.2, 0.5),
    "6.1-s390x": (0.2, 0.5),
    BUILT[0]: (0.55, 0.5),
    BUILT[1]: (0.55, 0.5),
    BUILT[2]: (0.55, 0.6),
}
GUESTS = 16
# So that all of them have room at once.
ROOM = ("--memory", "512M")


def against_cold(cell: str) -> list[list[str]]:
    """Two rows: `true` in a restored guest and in a booted one, and the seconds alone."""
    part, most = TARGETS[cell]
    # It leaves the template.
    run_in(cell)
    warm, cold = interleaved(lambda: run_in(cell, "--warm"), lambda: run_in(cell, "--cold"))
    ratio, what = warm / cold, f"`true` in {cell}, warm"
    return [
        row(
            what,
            f"{warm:.2f} s",
            f"cold {cold:.2f} s",
            f"{ratio:.2f} times",
            f"at most {part} times",
            ratio <= part,
        ),
        row(f"{what}, wall time", f"{warm:.2f} s", "-", "-", f"at most {most} s", warm <= most),
    ]


def with_head_start(cell: str) -> list[str]:
    """One row: a run that repeats an earlier one's options, and one whose options are new here."""

    def new() -> None:
        shutil.rmtree(paths.state_dir() / headstart.FOLDER, ignore_errors=True)
        run_in(cell, "--warm")

    again, first = interleaved(lambda: run_in(cell, "--warm"), new)
    what = f"`true` in {cell}, warm, options as before"
    return row(what, f"{again:.2f} s", f"new options {first:.2f} s", f"{again - first:+.2f} s", "-", True)


def restored_by_hand(spec: CellSpec) -> None:
    """Restore the guest of a specification until its command has ended."""
    with tempfile.TemporaryDirectory() as name:
        files = msgspec.structs.replace(spec.files, folder=name)
        own = msgspec.structs.replace(spec, files=files)
        anyio.run(_restore, own, runlayer.write_run_layer(own, ""))


async def _restore(spec: CellSpec, shares: list[Share]) -> None:
    async with starting(spec, shares) as start:
        with vm.host_ends(spec, shares, start.memory) as ends:
            async with vm.running(spec, shares, ends, start.memory):
                await start.restore(ends.ports[QMP], ends.ports[CONTROL])
                control = Control(ends.ports[CONTROL])
                await control.send(start.message())
                while (message := await control.receive()) is not None and message.event != "exited":
                    pass


def makespan(matrix: str) -> list[str]:
    """One row: all cells of a matrix, restored and booted."""
    argv = [*QUIZMATRIX, "run", matrix, "--offline"]

    def run(*options: str) -> None:
        subprocess.run([*argv, *options, "--", "true"], check=True, stdout=subprocess.DEVNULL)

    run()
    warm, cold = interleaved(lambda: run("--warm"), lambda: run("--cold"))
    ratio = warm / cold
    return row(
        f"all cells of `{matrix}`, warm",
        f"{warm:.2f} s",
        f"cold {cold:.2f} s",
        f"{ratio:.2f} times",
        "at most 0.45 times",
        ratio <= 0.45,
    )


def memory(cell: str) -> list[str]:
    """One row: the memory of idle guests (their proportional share), restored and booted."""
    run_in(cell, *ROOM)
    warm, cold = _memory_of(cell, "--warm"), _memory_of(cell, "--cold")
    return row(
        f"memory of {GUESTS} idle guests, {cell}",
        f"{warm:.0f} MiB",
        f"booted {cold:.0f} MiB",
        f"{warm / cold:.2f} times",
        "at most 0.4 times",
        warm / cold <= 0.4,
    )


def _memory_of(cell: str, start: str) -> float:
    """MiB of all guests of a run together, while each sleeps."""
    argv = [
        *QUIZMATRIX,
        "run",
        "--only",
        cell,
        "--offline",
        start,
        "--shard",
        str(GUESTS),
        "-j",
        str(GUESTS),
        *ROOM,
        "-v",
    ]
    with subprocess.Popen(
        [*argv, "--", "sleep 1000"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as run:
        running, stderr = 0, run.stderr
        if stderr is None:
            raise SystemExit("no output")
        while running < GUESTS:
            line = stderr.readline()
            if not line:
                raise SystemExit("a guest did not start")
            running += line.rstrip().endswith(b": running")
        time.sleep(2)
        found = 0
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                name = (folder / "cmdline").read_bytes().split(b"\0")
                parent = re.search(r"^PPid:\t(\d+)", (folder / "status").read_text(), re.MULTILINE)
                if b"qemu-system" in name[0] and parent is not None and int(parent[1]) == run.pid:
                    pss = re.search(r"^Pss: +(\d+) kB", (folder / "smaps_rollup").read_text(), re.MULTILINE)
                    found += int(pss[1]) if pss else 0
            except OSError:
                continue
        run.terminate()
        stderr.read()
    return found / 1024


def measure() -> list[list[str]]:
    """All rows."""
    rows = [line for cell in TARGETS for line in against_cold(cell)]
    for cell in ("6.1-x86_64", "6.1-s390x"):
        rows.append(against_bare_qemu(cell, 0.15, "--warm", restored_by_hand))
        rows.append(with_head_start(cell))
    # They leave the template.
    run_in("6.1-x86_64", *DEBIAN)
    subprocess.run(shell_words("6.1-x86_64"), check=True, stdin=subprocess.DEVNULL)
    rows += [debian_image("6.1-x86_64", "--warm", 0.2), shell_start("6.1-x86_64", "--warm", 0.3)]
    rows += [makespan("endian"), memory("6.1-x86_64")]
    return rows


def main() -> int:
    """Measure the cells that are named, or everything."""
    rows = [line for cell in sys.argv[1:] for line in against_cold(cell)] or measure()
    print(tabulate(rows, headers=["what", "quizmatrix", "rival", "difference", "target", ""]))
    return int(any(line[-1] == "MISSED" for line in rows))


if __name__ == "__main__":
    sys.exit(main())
