"""Finds which options of a kernel export or declare what a module misses, and how to switch them on."""
