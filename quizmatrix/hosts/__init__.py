"""Other hosts: cells are run on them by dask.distributed."""
