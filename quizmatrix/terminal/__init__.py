"""A person's terminal in a guest, and what `exec` and `cp` do there.

Imports all packages from core to report.
"""
