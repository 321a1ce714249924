"""Builds OpenZFS from a source tree."""
