"""OpenZFS: built from a source tree."""
