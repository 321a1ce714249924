"""Reads a kernel's console: findings, their traces and fingerprints, and the source lines of functions.

Imports core and model.
"""
