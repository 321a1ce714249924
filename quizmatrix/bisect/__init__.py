"""The search for the version where an outcome changes.

Imports all packages from core to matrixrun.
"""
