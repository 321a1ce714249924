"""What is kept of earlier runs, in SQLite."""
