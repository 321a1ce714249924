"""Kernel modules of other people: built from their source or packages."""
