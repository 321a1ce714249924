"""Builds the user's own kernel modules, from source or from Debian's packages."""
