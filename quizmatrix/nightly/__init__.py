"""A run every night: its job, who starts it (cron or systemd), and what becomes of its runs.

Imports all packages from core to bisect.
"""
