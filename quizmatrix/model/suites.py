"""Where the test suites of a matrix are on this host: its key `suite`."""

from __future__ import annotations

from pathlib import Path

from quizmatrix.core.errors import DataError, UsageError
from quizmatrix.model import profile
from quizmatrix.model.arch import NATIVE, load_arch

# `path:DIR` by the name of the profile that runs the suite; of one that is compiled, by architecture.
Suites = dict[str, str | dict[str, str]]

_PATH = "path:"
# The option of a profile that says where its suite is in the guest.
ROOT = "root"


def check(suites: Suites) -> None:
    """Raise ValueError, "`suite.NAME`: ...", if a place or an architecture is invalid."""
    for name, places in suites.items():
        try:
            for arch, place in (places if isinstance(places, dict) else {"": places}).items():
                if arch:
                    load_arch(arch)
                if arch == NATIVE:
                    raise ValueError("a suite is compiled for one architecture: name it")
                if not place.startswith(_PATH) or not place.removeprefix(_PATH).strip():
                    raise ValueError(f'{place!r} is no place; write "path:../{name}"')
                _expanded(place)
        except UsageError as error:
            raise ValueError(f"`suite.{name}`: {error.fact}. {error.next_step}") from error
        except ValueError as error:
            raise ValueError(f"`suite.{name}`: {error}") from error


def check_profiles(suites: Suites, where: str) -> None:
    """Raise DataError where no profile runs a suite. where: the matrix."""
    for name in suites:
        if ROOT not in profile.facts_of(name, where).options:
            raise DataError(
                where,
                cause=f"`suite.{name}`: the profile {name} runs no suite from a folder",
                next_step="ltp, xfstests and blktests do.",
            )


def with_absolute_paths(suites: Suites, folder: Path) -> Suites:
    """The same places, with paths relative to `folder` made absolute."""

    def absolute(place: str) -> str:
        return f"{_PATH}{folder / _expanded(place)}"

    return {
        name: {arch: absolute(place) for arch, place in places.items()}
        if isinstance(places, dict)
        else absolute(places)
        for name, places in suites.items()
    }


def _expanded(place: str) -> Path:
    """The path of a place. Raises ValueError where `~` is no home."""
    try:
        return Path(place.removeprefix(_PATH)).expanduser()
    except RuntimeError as error:
        raise ValueError(f"{place}: {error}") from error


def of_cell(suites: Suites, arch: str) -> tuple[tuple[str, str], ...]:
    """The suites that there are for an architecture: the name of the profile, and the folder."""
    places = ((name, one.get(arch) if isinstance(one, dict) else one) for name, one in suites.items())
    return tuple((name, place.removeprefix(_PATH)) for name, place in places if place is not None)
