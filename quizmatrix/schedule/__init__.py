"""Many cells at once: which may start, which wait for another's disks, which are tried again.

Imports all packages from core to runs.
"""
