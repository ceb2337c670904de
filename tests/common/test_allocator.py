import os
import platform
import subprocess
import sys

import pytest

from common.allocator import keep_freed_memory, return_freed_memory

PROGRAM = """
import resource, sys, threading
from common.allocator import keep_freed_memory, return_freed_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() / 2**20

def steps(count):
    for _ in range(count):
        blocks = [b"1" * (size * 2**20) for size in (64, 3, 40)]

kept = sys.argv[1] == "kept" and keep_freed_memory()
found = []

def work():
    steps(2)
    before = faults()
    steps(5)
    found.append(faults() - before)

thread = threading.Thread(target=work)
thread.start()
thread.join()
held = resident()
return_freed_memory()
print(kept, found[0], held - resident())
"""


def played(how: str) -> tuple[str, int, float]:
    """Whether the C library took it, page faults of five steps after the first two, and MiB that were returned."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_TUNABLES"))}
    done = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True, env=ours)
    kept, faults, returned = done.stdout.split()
    return kept, int(faults), float(returned)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told")
def test_a_step_reuses_what_the_last_one_freed_until_it_is_returned() -> None:
    _, as_it_is, at_once = played("plain")
    kept, faults, returned = played("kept")
    assert kept == "True"
    assert faults < as_it_is / 10
    assert at_once < 10
    assert returned > 90


def test_a_library_without_mallopt_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("common.allocator._libc", lambda: None)
    assert keep_freed_memory() is False
    return_freed_memory()
