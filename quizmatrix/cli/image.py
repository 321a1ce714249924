"""The command `quizmatrix image` and its parser."""

from __future__ import annotations

import argparse

from quizmatrix.cli.options import Commands, Parser, add_command


def add_parser(commands: Commands[Parser]) -> None:
    """Add `image build|list|remove`."""
    parser = add_command(commands, "image", list_images, help="build, list and remove Debian images")
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    make = add_command(
        actions,
        "build",
        build,
        uses_cache=True,
        help="build a Debian image, which later runs use",
        description="If this host cannot run the programs of an architecture, its image is configured in a "
        "guest of that architecture.",
    )
    make.add_argument("-a", "--arch", dest="arches", action="append", default=[], help="default: this host's")
    make.add_argument("--suite", metavar="S", help="Debian's suite: bookworm, trixie, sid")
    make.add_argument(
        "--include", action="append", default=[], metavar="PKG", help="packages, and sets like zfs-tests"
    )
    make.add_argument("--kernel", metavar="K", help="the kernel of the guest that configures the image")
    add_command(actions, "list", list_images, help="the Debian images in the cache")
    action = add_command(actions, "remove", remove, help="remove images from the cache")
    action.add_argument("key", nargs="+", metavar="IMAGE", help="as `image list` shows it")


def build(args: argparse.Namespace) -> int:
    """Build an image for each architecture."""
    from quizmatrix.build import images
    from quizmatrix.prepare.selection import words

    include, arches = words("--include", args.include), words("--arch", args.arches)
    return images.build(arches, suite=args.suite, include=include, kernel=args.kernel)


def list_images(_: argparse.Namespace) -> int:
    """Print the Debian images in the cache."""
    from quizmatrix.build import images

    images.print_list()
    return 0


def remove(args: argparse.Namespace) -> int:
    """Remove images from the cache."""
    from quizmatrix.build import images

    images.remove(args.key)
    return 0
