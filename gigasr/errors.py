"""Errors that a user can cause, and their texts."""

import pickle
import struct

EXPECTED = (ValueError, OSError, RuntimeError, MemoryError, ImportError)
DAMAGED_WEIGHTS = (  # what torch.load raises for files that are none of torch's, or torn
    AttributeError,
    EOFError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
    struct.error,
)


def join_lines(text: str) -> str:
    """A text whose line breaks and runs of blanks are single blanks."""
    return " ".join(text.split())
