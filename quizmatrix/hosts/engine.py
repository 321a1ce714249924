"""How dask is set up in our processes."""

from __future__ import annotations

import logging

import dask


def configure(level: int) -> None:
    """Set it up, before anything of it is started. level: of messages that are logged."""
    dask.config.set(
        {
            "distributed.worker.daemon": False,
            # Its pages, which ask for no certificate, are for nobody.
            "distributed.worker.http.routes": [],
            # Jobs are processes of their own. It would look at the stacks of ours a hundred times a second.
            "distributed.worker.profile.enabled": False,
            "distributed.admin.system-monitor.interval": "5s",
            # Each worker looks so often whether its event loop is late, by default fifty times a second.
            "distributed.admin.tick.interval": "500ms",
        }
    )
    for name in ("distributed", "tornado.application", "tornado.general"):
        logging.getLogger(name).setLevel(level)
