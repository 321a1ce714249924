"""Runs one cell, from its specification to its result: the VM, its channel, its layers, the verdict.

Imports all packages from core to image.
"""
