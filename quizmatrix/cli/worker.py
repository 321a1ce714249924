"""The command `quizmatrix worker` and its parser."""

from __future__ import annotations

import argparse

from quizmatrix.cli.options import Commands, Parser, add_command, number
from quizmatrix.core.errors import UnpreparedError, UsageError
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
    parser.add_argument("--certificates", metavar="DIR", help="those of this host")
    parser.add_argument(
        "--make-certificates",
        action="store_true",
        help="make certificates for all hosts, once; copy their folder to the others",
    )


def work(args: argparse.Namespace) -> int:
    """Lend this host, or make certificates; returns the exit status."""
    from quizmatrix.hosts import security

    certificates = security.certificates(args.certificates)
    if args.make_certificates:
        security.make_certificates(certificates.folder)
        print(f"{certificates.folder}: copy it to the same place on every host; its key lets a host join")
        return EXIT_OK
    if args.address is None:
        raise UsageError("which scheduler?", next_step="quizmatrix worker tls://HOST:8786")
    security.check_address(args.address)
    import anyio

    try:
        from quizmatrix.hosts.lending import Lent, lend
    except ImportError as error:
        raise missing_extra(error) from error
    anyio.run(lend, args.address, certificates, Lent(cpus=number("--cpus", args.cpus)))
    return EXIT_OK


def missing_extra(error: ImportError) -> UnpreparedError:
    """The error where dask.distributed is not installed."""
    return UnpreparedError(
        "other hosts need dask.distributed, which is not installed",
        cause=str(error),
        next_step="pip install 'quizmatrix[hosts]'",
    )
