"""Long-running commands as processes: one at a time, and none that outlives its parent."""

import fcntl
import os
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from common.errors import RunError
from common.processes import is_held, only_process, open_more_files

CHILD = """
import os, sys, threading, time
from common.processes import end_with_parent
end_with_parent(int(sys.argv[1]), 64, look=0.05)
with open(sys.argv[2], "w") as file:
    file.write(str(os.getpid()))
stuck = threading.Lock()
stuck.acquire()
stuck.acquire(timeout=60)
"""
PARENT = """
import os, subprocess, sys, time
subprocess.Popen([sys.executable, "-c", sys.argv[1], str(os.getpid()), sys.argv[2]], start_new_session=True)
time.sleep(60)
"""


def ended(process: int) -> bool:
    """Also where nobody waits for it, and it stays a zombie."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("reaped", [True, False])
def test_a_process_ends_with_its_parent_even_if_nobody_waits_for_that_one(tmp_path: Path, reaped: bool) -> None:
    number = tmp_path / "child"
    parent = subprocess.Popen([sys.executable, "-c", PARENT, CHILD, str(number)], cwd=Path(__file__).parents[2])
    try:
        end = time.monotonic() + 30
        while not (number.exists() and number.read_text()) and time.monotonic() < end:
            time.sleep(0.05)
        child = int(number.read_text())
        time.sleep(0.3)
        assert not ended(child)
        parent.kill()
        if reaped:
            parent.wait()
        end = time.monotonic() + 10
        while not ended(child) and time.monotonic() < end:
            time.sleep(0.05)
        assert ended(child)
    finally:
        parent.kill()
        parent.wait()


def test_a_process_whose_parent_is_another_ends_at_once() -> None:
    program = "import time\nfrom common.processes import end_with_parent\nend_with_parent(1, 64)\ntime.sleep(60)"
    assert subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parents[2], timeout=30).returncode == 64


def test_a_lock_is_held_by_one_process_and_says_by_which(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert not is_held(path)
    with only_process(path, "taken by {process}"):
        assert is_held(path)
        with pytest.raises(RunError, match=f"taken by {os.getpid()}"), only_process(path, "taken by {process}"):
            pass
    assert not is_held(path)


def test_whoever_only_looks_at_a_lock_keeps_nobody_from_taking_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.touch()
    with open(path) as looker:
        fcntl.flock(looker, fcntl.LOCK_SH)
        assert not is_held(path)
        leaving = threading.Timer(0.2, fcntl.flock, (looker, fcntl.LOCK_UN))
        leaving.start()
        with only_process(path, "taken"):
            assert is_held(path)
        leaving.join()


def test_as_many_files_may_be_open_as_the_system_allows() -> None:
    soft, hard = before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 64 + 192), hard))
        assert open_more_files() == hard
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == hard
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
