"""Debian's archive through apt, and its source packages.

Imports core and model.
"""
