"""Makes base images (a guest's root file system) and initramfs archives.

Imports core, model, debian and kernel.
"""
