"""Run one command on many Linux kernels and architectures at once, each in a throw-away microVM."""

__version__ = "0.1.0"
