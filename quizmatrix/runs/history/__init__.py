"""The history of runs, kept in SQLite."""
