"""Which of its tests a command is told to run, and how long they took: files of the guest that name tests."""

from __future__ import annotations

import msgspec

# The folder of these files in the guest.
FOLDER = "usr/share/quizmatrix"


class TestChoice(msgspec.Struct, frozen=True, kw_only=True):
    """What a command is told about its tests. Tests have the names that results have.

    seconds: how long each took last; by this, a slice of the tests is dealt.
    only: the only ones to run; empty: all.
    skip: those not to run. lost: those of them that ended their guest.
    """

    seconds: dict[str, float] = {}
    only: list[str] = []
    skip: list[str] = []
    lost: list[str] = []

    @property
    def files(self) -> dict[str, str]:
        """The files of the guest, with a test on each line: content by the variable that names the file."""
        timed = [f"{seconds:g} {name}" for name, seconds in self.seconds.items()]
        lists = {
            "QUIZMATRIX_SECONDS_FILE": timed,
            "QUIZMATRIX_TESTS_FILE": self.only,
            "QUIZMATRIX_SKIP_FILE": self.skip,
            "QUIZMATRIX_LOST_FILE": self.lost,
        }
        return {variable: "\n".join([*lines, ""]) for variable, lines in lists.items() if lines}

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables that name the files."""
        return {variable: f"/{path_of(variable)}" for variable in self.files}


# A command that is told nothing.
NOTHING_TOLD = TestChoice()


def path_of(variable: str) -> str:
    """The path of a file in the guest, without its first slash: of QUIZMATRIX_SECONDS_FILE `.../seconds`."""
    return f"{FOLDER}/{variable.removeprefix('QUIZMATRIX_').removesuffix('_FILE').lower()}"
