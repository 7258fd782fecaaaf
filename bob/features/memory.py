"""What glibc does with freed memory: on a CPU, page faults cost a convolutional net more than its decoding does."""

from __future__ import annotations

import ctypes
import sys
from functools import lru_cache

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h


@lru_cache(maxsize=1)
def keep_freed() -> None:
    """Keep freed blocks for the next batch: the kernel would take each large activation back and fault it in again."""
    library = _glibc()
    if library is not None:
        library.mallopt(_MMAP_THRESHOLD, 1 << 30)
        library.mallopt(_TRIM_THRESHOLD, 2**31 - 1)


def release_freed() -> None:
    """Give the blocks that are free now back, once: after a fork each of their pages would be copied when written."""
    library = _glibc()
    if library is not None:
        library.malloc_trim(0)


@lru_cache(maxsize=1)
def _glibc() -> ctypes.CDLL | None:
    """The C library, if it is one that has these functions."""
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None
