"""From options to cells, and from a cell to what it is run from: artifacts, accelerator, profiles.

Imports all packages from core to run.
"""
