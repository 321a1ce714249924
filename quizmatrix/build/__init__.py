"""Kernels, images, modules and OpenZFS, built for many cells.

Imports all packages from core to terminal.
"""
