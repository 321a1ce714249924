"""Builds the user's own kernel modules."""
