"""Runs the command line for `python -m quizmatrix`."""

from quizmatrix.cli import main

if __name__ == "__main__":
    main()
