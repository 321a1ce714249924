"""What starts a run every night: the user's crontab, or their systemd.

Imports all packages from core to bisect.
"""
