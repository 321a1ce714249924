"""Run directories: written, read, listed, repeated, resumed and removed; and the history of runs.

Imports all packages from core to prepare.
"""
