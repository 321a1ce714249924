"""The page of the lines that ran: the counters of all cells of a run, merged (`run --coverage DIR`).

Imports core to build.
"""
