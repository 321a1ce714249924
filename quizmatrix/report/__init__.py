"""Shows the results of runs: grid, findings, tests, comparisons, and report files.

Imports all packages from core to schedule.
"""
