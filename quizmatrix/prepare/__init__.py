"""Turns options into cells, and makes what each cell is run from: artifacts, accelerator, profiles.

Imports all packages from core to run.
"""
