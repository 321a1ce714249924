"""Gets kernels: from Debian, kernel.org, git, a folder or a tarball; and builds those that come as source.

Imports core, model and debian.
"""
