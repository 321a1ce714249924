"""What a kernel prints: titles of findings, their traces, fingerprints, and the source lines of functions.

Imports core and model.
"""
