"""What dask's scheduler says of the workers."""

from __future__ import annotations

from typing import Any

from distributed.client import ClosedClientError, FutureCancelledError

from quizmatrix.core.errors import UnpreparedError
from quizmatrix.hosts.placing import resource

# What dask raises when the scheduler has gone: the last one where the client has noticed that, too.
GONE = (FutureCancelledError, ClosedClientError, OSError, AttributeError)


def scheduler_is_gone() -> UnpreparedError:
    """The error for that."""
    return UnpreparedError("the scheduler is gone", next_step="`quizmatrix run --resume` goes on.")


async def workers_of(client: Any) -> list[dict[str, Any]]:
    """What dask knows of the hosts that were lent by this version of `quizmatrix worker`.

    Raises UnpreparedError where the scheduler is gone.
    """
    try:
        known = await client.scheduler.identity(n_workers=-1)
    except GONE as error:
        raise scheduler_is_gone() from error
    found = known["workers"].items()
    return [
        {**worker, "address": address} for address, worker in found if worker["resources"].get(resource())
    ]
