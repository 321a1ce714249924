"""Reads test results: TAP, KTAP, the output of OpenZFS's test runner, and tests in a kernel's log.

Imports core and model.
"""
