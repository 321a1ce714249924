"""One run over the cells of a matrix, from its options to its exit status: what `quizmatrix run` does.

Imports all packages from core to build.
"""
