"""Data: architectures, matrices, cells, what a cell is run from and what comes out of it.

Imports only core; nothing here starts a program or fetches a file.
"""
