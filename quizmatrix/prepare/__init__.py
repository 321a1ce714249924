"""From a cell to what it is run from: artifacts, accelerator, the host halves of profiles.

Imports all packages from core to run.
"""
