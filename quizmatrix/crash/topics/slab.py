"""Which slab caches have the most memory."""

from __future__ import annotations

from collections.abc import Iterator

import drgn
from drgn.helpers.linux.slab import for_each_slab_cache, slab_cache_usage

from quizmatrix.crash.bounds import Listed, text_of

_MOST_CACHES = 2000
_SHOWN = 15


def lines(program: drgn.Program) -> Iterator[str]:
    """The largest caches: their size, and their objects; then those that cannot be read."""
    found, damaged = [], []
    caches = Listed(for_each_slab_cache(program), _MOST_CACHES)
    for cache in caches:
        name = text_of(cache.name)
        try:
            usage = slab_cache_usage(cache)
            size = usage.num_objs * cache.size.value_()
            found.append((size, usage.active_objs, usage.num_objs, name))
        except Exception as error:  # drgn's errors have no class in common
            damaged.append(f"{name} was not read: {error}")
    for size, active, objects, name in sorted(found, reverse=True)[:_SHOWN]:
        yield f"{size / 1024:10,.0f} KiB  {active:8} of {objects:8} objects  {name}"
    yield from damaged[:_SHOWN]
    if caches.rest:
        yield caches.rest
