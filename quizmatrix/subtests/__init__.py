"""What tests print: TAP, KTAP, OpenZFS's test runner, and tests in a kernel's log.

Imports core and model.
"""
