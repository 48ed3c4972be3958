"""Makes the allocator of the C library keep freed memory.

On a CPU every call of a compiled program allocates its temporary memory and frees it: 0.3 GB for a
published update of 32 samples. By default glibc returns blocks of that size to the system, and the
next call gets new, zeroed pages: a tenth of the time.

Importing this file changes it for the whole process. Commands import it first, because a thread
that has allocated before (numpy's and JAX's do) has its own heap, which others then share.
"""

import ctypes
import os

# Parameters of mallopt(3), in the order in which they are set.
_ARENA_MAX, _MMAP_MAX, _TRIM_THRESHOLD = -8, -4, -1
_NEVER = -1  # mallopt takes an int, so 2 GB would be the maximum


def _keep_freed_memory() -> bool:
    """Keep freed memory for reuse.

    Settings from glibc's environment variables take precedence. Returns whether it was done: other
    C libraries have no such option.
    """
    if any(name == "GLIBC_TUNABLES" or name.startswith("MALLOC_") for name in os.environ):
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallopt"):
        return False
    # One heap for all threads, which grows instead of using mmap, and is never trimmed.
    settings = ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, _NEVER))
    return all([library.mallopt(parameter, value) for parameter, value in settings])


IS_KEPT = _keep_freed_memory()
