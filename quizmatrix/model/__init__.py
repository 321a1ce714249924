"""Data structures: architectures, matrices, cells, a cell's specification and its result.

Imports only core. Nothing here starts a program or fetches a file.
"""
