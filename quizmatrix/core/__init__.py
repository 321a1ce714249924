"""General tools without knowledge of kernels or guests: errors, units, text, TOML, processes, files, locks.

Imports no other part of quizmatrix.
"""
