"""Runs a command every night: keeps it as a job, installs it in cron or systemd, and removes its old runs.

Imports all packages from core to bisect.
"""
