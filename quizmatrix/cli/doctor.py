"""The command `quizmatrix doctor` and its parser."""

from __future__ import annotations

import argparse

from quizmatrix.cli.options import Commands, Parser, add_command


def add_parser(commands: Commands[Parser]) -> None:
    """Add `doctor`."""
    parser = add_command(
        commands,
        "doctor",
        doctor,
        uses_cache=True,
        help="check what this host has and lacks, and print the commands that mend it",
    )
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.add_argument("--retry-kvm", action="store_true", help="check again whether KVM can run a guest")


def doctor(args: argparse.Namespace) -> int:
    """Check the host. Returns exit status 1 where something necessary is missing."""
    from quizmatrix.prepare import hostcheck

    return hostcheck.check(as_json=args.json, retry_kvm=args.retry_kvm)
