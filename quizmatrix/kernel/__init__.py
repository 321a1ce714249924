"""Where kernels come from: Debian, kernel.org, git, a folder, a tarball; and how they are built.

Imports core, model and debian.
"""
