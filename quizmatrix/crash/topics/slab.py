"""Which slab caches have the most memory."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import drgn
from drgn.helpers.linux.slab import for_each_slab_cache, slab_cache_usage

_MOST_CACHES = 2000
_SHOWN = 15


def lines(program: drgn.Program) -> Iterator[str]:
    """The largest caches: their size, and their objects."""
    found = []
    for cache in itertools.islice(for_each_slab_cache(program), _MOST_CACHES):
        usage = slab_cache_usage(cache)
        size = usage.num_objs * cache.size.value_()
        found.append((size, usage.active_objs, usage.num_objs, cache.name.string_().decode(errors="replace")))
    for size, active, objects, name in sorted(found, reverse=True)[:_SHOWN]:
        yield f"{size / 1024:10,.0f} KiB  {active:8} of {objects:8} objects  {name}"
