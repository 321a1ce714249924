"""OpenZFS's pools, where its modules were loaded and have debug information (`zfs build --debug`)."""

from __future__ import annotations

from collections.abc import Iterator

import drgn

from quizmatrix.crash.bounds import Listed, text_of

_MOST_POOLS = 100


def lines(program: drgn.Program) -> Iterator[str]:
    """Each pool's state, and where its transaction groups are."""
    try:
        tree = program.variable("spa_namespace_avl")
    except LookupError:
        return
    pools = Listed(_nodes(tree, "spa_t *"), _MOST_POOLS)
    for spa in pools:
        pool = spa.spa_dsl_pool
        yield f"{text_of(spa.spa_name)}: {spa.spa_state.format_(type_name=False)}"
        yield f"  uberblock's txg {spa.spa_uberblock.ub_txg.value_()}, syncing {spa.spa_syncing_txg.value_()}"
        if pool:
            open_, quiesced = pool.dp_tx.tx_open_txg.value_(), pool.dp_tx.tx_quiesced_txg.value_()
            yield f"  txg {open_} is open, {quiesced} quiesced, {pool.dp_tx.tx_synced_txg.value_()} synced"
            yield f"  dirty data {pool.dp_dirty_total.value_()} bytes"
        if spa.spa_suspended:
            yield "  I/O is suspended"
    if pools.rest:
        yield pools.rest


def _nodes(tree: drgn.Object, kind: str) -> Iterator[drgn.Object]:
    """The elements of an avl_tree_t, in their order (module/avl/avl.c)."""
    program, offset = tree.prog_, tree.avl_offset.value_()

    def below(node: drgn.Object) -> Iterator[drgn.Object]:
        if node:
            yield from below(node.avl_child[0])
            yield drgn.Object(program, kind, value=node.value_() - offset)
            yield from below(node.avl_child[1])

    yield from below(tree.avl_root)
