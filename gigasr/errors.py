"""Exception types that callers catch, and the one-line form of messages."""

import pickle
import struct

EXPECTED = (ValueError, OSError, RuntimeError, MemoryError, ImportError)
DAMAGED_WEIGHTS = (  # raised by torch.load for truncated files and for files of other programs
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
    """Replace line breaks and runs of blanks by single blanks."""
    return " ".join(text.split())
