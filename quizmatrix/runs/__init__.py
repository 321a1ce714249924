"""Run directories and the history of runs.

Imports all packages from core to prepare.
"""
