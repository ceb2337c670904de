"""What the C library does with memory that was freed: programs that train have it keep that for their next step.

By itself glibc returns every large block to the kernel when it is freed, and a training step asks for dozens: the same pages are
mapped, cleared and returned again, step after step. `python -m benchmarks.allocator` measures what that costs. `fl-sim`, its
worker processes (Ray's are not ours to tell) and a device that takes part call `keep_freed_memory` before all else; such a
device calls `return_freed_memory` when a message is answered, so that it waits with no more than it needs.

The price: a large block of zeros that nothing was written to takes memory, too, where it lies on what was used before.
"""

import ctypes
import sys
from functools import cache

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8
"""Parameters of mallopt(3), as <malloc.h> numbers them."""


@cache
def _libc() -> ctypes.CDLL | None:
    """The C library, if it is one that can be told: glibc."""
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)
    if not (hasattr(library, "mallopt") and hasattr(library, "malloc_trim")):
        return None
    library.malloc_trim.argtypes = [ctypes.c_size_t]
    return library


def keep_freed_memory() -> bool:
    """Tell glibc to take large blocks from the heap, too, and to keep what was freed, for as long as this process lives.

    Call it before threads start. All that start later share one heap, since only the first can hold blocks of any size; a heap
    that an earlier thread made stays in use, even when that thread has ended, and returns its large blocks as before.

    Returns:
        Whether the C library took it; others than glibc are left as they are.
    """
    if (libc := _libc()) is None:
        return False
    wanted = {_ARENA_MAX: 1, _MMAP_MAX: 0, _TRIM_THRESHOLD: 2**31 - 1, _TOP_PAD: 64 * 2**20}
    taken = [libc.mallopt(parameter, value) == 1 for parameter, value in wanted.items()]
    return all(taken)


def return_freed_memory() -> None:
    """Give the kernel what was freed, once: for a process that will wait now."""
    if (libc := _libc()) is not None:
        libc.malloc_trim(0)
