"""Errors that a user can cause, and their texts."""

EXPECTED = (ValueError, OSError, RuntimeError, MemoryError, ImportError)


def join_lines(text: str) -> str:
    """A text whose line breaks and runs of blanks are single blanks."""
    return " ".join(text.split())
