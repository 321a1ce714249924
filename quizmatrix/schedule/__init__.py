"""Runs many cells at once: decides which may start, which wait for another cell's disks, which are retried.

Imports all packages from core to runs.
"""
