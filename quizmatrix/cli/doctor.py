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
        help="what this host has, lacks, and the command that mends it",
    )
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.add_argument("--retry-kvm", action="store_true", help="try anew whether KVM runs a guest")


def doctor(args: argparse.Namespace) -> int:
    """Look at the host; 1 where something needed is missing."""
    from quizmatrix.prepare import hostcheck

    return hostcheck.check(as_json=args.json, retry_kvm=args.retry_kvm)
