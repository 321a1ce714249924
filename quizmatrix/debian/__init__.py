"""Fetches binary and source packages from Debian's archive, through apt.

Imports core and model.
"""
