"""The C library's allocator, told to keep what is freed.

Every call of a compiled program on a CPU takes its temporary memory from the C library and gives it
back: 0.3 GB for a published update of 32 samples. By default glibc returns blocks of that size to
the system, and the next call gets page after page anew, each of them zeroed: a tenth of the time.

Importing this file does it, for the whole process. Commands import it first, because a thread that
has asked for memory before (numpy's and JAX's do) has a heap of its own, which others then share.
"""

import ctypes
import os

# Parameters of mallopt(3), in the order in which they are set.
_ARENA_MAX, _MMAP_MAX, _TRIM_THRESHOLD = -8, -4, -1
_NEVER = -1  # mallopt takes an int: 2 GB would be the most


def _keep_freed_memory() -> bool:
    """Have freed memory wait for its next use.

    Whoever has chosen glibc's settings by its variables keeps them. Returns whether it was done:
    other C libraries have no such switch.
    """
    if any(name == "GLIBC_TUNABLES" or name.startswith("MALLOC_") for name in os.environ):
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallopt"):
        return False
    # One heap for all threads, which grows in place of mappings, and is not cut when it is free.
    settings = ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, _NEVER))
    return all([library.mallopt(parameter, value) for parameter, value in settings])


IS_KEPT = _keep_freed_memory()
