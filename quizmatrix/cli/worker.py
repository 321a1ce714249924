"""The command `quizmatrix worker` and its parser."""

from __future__ import annotations

import argparse
from contextlib import nullcontext

from quizmatrix.cli.options import Commands, Parser, add_command, number
from quizmatrix.core.errors import UsageError
from quizmatrix.model.outcome import EXIT_OK


def add_parser(commands: Commands[Parser]) -> None:
    """Add `worker`."""
    parser = add_command(
        commands,
        "worker",
        work,
        uses_cache=True,
        help="lend this host to the runs of other hosts",
        description="Run cells for `quizmatrix run --on ADDRESS` on other hosts, until the dask scheduler at "
        "ADDRESS ends or Ctrl-C. Each cell is a process of its own; what it is run from comes from the host "
        "that wants it. All hosts have the same quizmatrix and, off the loopback, certificates.",
    )
    parser.add_argument("address", nargs="?", metavar="ADDRESS", help="tls://HOST:8786")
    parser.add_argument("--cpus", metavar="N", help="of all guests together (default: all)")
    parser.add_argument(
        "--certificates",
        metavar="DIR",
        help="those of this host (-: they come on stdin, with whose end it ends)",
    )
    parser.add_argument("--port", metavar="N", help="listen there, on the loopback alone: for a tunnel")
    parser.add_argument("--name", dest="own_name", metavar="NAME", help="its name for the scheduler")
    parser.add_argument(
        "--make-certificates",
        action="store_true",
        help="make certificates for all hosts, once; copy their folder to the others",
    )


def work(args: argparse.Namespace) -> int:
    """Lend this host, or make certificates; returns the exit status."""
    from quizmatrix.hosts import security, where

    if args.make_certificates:
        folder = security.certificates(args.certificates).folder
        security.make_certificates(folder)
        print(f"{folder}: copy it to the same place on every host; its key lets a host join")
        return EXIT_OK
    if args.address is None:
        raise UsageError("which scheduler?", next_step="quizmatrix worker tls://HOST:8786")
    security.check_address(args.address)
    cpus, port = number("--cpus", args.cpus), number("--port", args.port)
    import anyio

    try:
        from quizmatrix.hosts.lending import Lent, lend
    except ImportError as error:
        raise where.missing_extra(error) from error
    of_run = args.certificates == "-"
    with security.from_stdin() if of_run else nullcontext(security.certificates(args.certificates)) as own:
        lent = Lent(cpus=cpus, port=port, name=args.own_name, ends_with_stdin=of_run)
        anyio.run(lend, args.address, own, lent)
    return EXIT_OK
