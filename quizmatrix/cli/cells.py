"""The command `quizmatrix cells` and its parser."""

from __future__ import annotations

import argparse

from quizmatrix.cli.options import Commands, Parser, add_command, add_limits, add_selection, run_options


def add_parser(commands: Commands[Parser]) -> None:
    """Add `cells`."""
    parser = add_command(commands, "cells", cells, help="what a matrix expands to")
    add_selection(parser)
    add_limits(parser)
    parser.add_argument("--json", dest="as_json", action="store_true", help="as JSON")


def cells(args: argparse.Namespace) -> int:
    """Print the cells of a matrix."""
    from quizmatrix.model.handoff import handing_on
    from quizmatrix.model.outcome import EXIT_OK
    from quizmatrix.prepare import selection
    from quizmatrix.report.celltable import handoff_words, print_cells

    chosen = selection.selected(run_options(args))
    words = ""
    if chosen.handoff is not None:
        words = handoff_words(chosen.handoff, handing_on(chosen.cells, chosen.handoff, str(chosen.matrix)))
    print_cells(chosen.cells, as_json=args.as_json, left_out=chosen.left_out)
    if words and not args.as_json:
        print(f"\n{words}")
    return EXIT_OK
