"""A person's terminal in a guest: over SSH or on its console, and what `exec` and `cp` do there.

Imports all packages from core to report.
"""
