"""Reads the memory of a guest with drgn: what was running when its kernel died.

Imports only core. drgn is an extra (`pip install quizmatrix[debug]`); it is imported in a process of its own.
"""
