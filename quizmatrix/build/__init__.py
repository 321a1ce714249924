"""Builds kernels, images, modules and OpenZFS for many cells.

Imports all packages from core to terminal.
"""
