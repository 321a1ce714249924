"""`quizmatrix run` without its parser: runs a matrix, from the options to the exit status.

Imports all packages from core to build.
"""
