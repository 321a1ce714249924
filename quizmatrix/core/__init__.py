"""Tools that know nothing of kernels and guests: errors, units, text, TOML, processes, files, locks.

Imports nothing else of this package.
"""
