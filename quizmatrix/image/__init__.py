"""Base images and initramfs: the root file system that a guest starts from.

Imports core, model, debian and kernel.
"""
