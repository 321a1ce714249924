"""What a person or a program is told of a run: grid, findings, tests, comparisons, report formats.

Imports all packages from core to schedule.
"""
