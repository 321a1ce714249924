"""Keeps the counters of gcov that a guest left: how often each line of its kernel and modules ran."""

from __future__ import annotations

from pathlib import Path

import msgspec

from quizmatrix.core import paths, untrusted
from quizmatrix.core.errors import DamagedError
from quizmatrix.model.spec import CellSpec
from quizmatrix.run.cellfolder import artifacts_of

# In a cell's folder: the counters, as the guest wrote them, and what they are of.
COUNTERS = "counters.tar"
RECORD = "counters.json"

# The name that guest/counters gives them in /shared.
_IN_SHARED = ".quizmatrix-counters.tar"


class CountersRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What the counters are of. kernel: the key of the guest's kernel."""

    kernel: str


def keep(spec: CellSpec) -> list[str]:
    """Move the counters out of a guest's /shared, which was made safe; return notes for the user.

    There are none where the guest died, or was ended, before its command had.
    """
    folder = Path(spec.files.folder)
    left = artifacts_of(folder) / _IN_SHARED
    try:
        with untrusted.open_regular(left):
            left.rename(folder / COUNTERS)
        record = CountersRecord(kernel=spec.machine.kernel.key)
        paths.write_atomic(folder / RECORD, msgspec.json.encode(record))
    except FileNotFoundError:
        return []
    except OSError as error:
        return [f"its counters of lines were not kept: {error.strerror}"]
    return []


def load(folder: Path) -> CountersRecord | None:
    """What the counters in a cell's folder are of; None where there are none.

    Raises DamagedError where the record cannot be read.
    """
    try:
        return msgspec.json.decode((folder / RECORD).read_bytes(), type=CountersRecord)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        raise DamagedError(f"{folder / RECORD} cannot be read", cause=str(error)) from error
