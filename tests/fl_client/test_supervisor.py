"""The supervisor starts a process again whatever it says, unless it may not take part at all."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from fl_client.node_settings import FINAL, Ending
from fl_client.supervisor import Backoff, Supervisor

QUICK = Backoff(first=0.01, longest=0.02)


def supervise(program: str, final: frozenset[int] = frozenset({80})) -> tuple[Supervisor, list[str]]:
    said: list[str] = []
    return Supervisor([sys.executable, "-c", program], os.environ, final, said.append, QUICK), said


def ending_in(codes: list[int], folder: Path) -> str:
    """A program that ends with one code after the other."""
    return f"""
import pathlib, sys
count = pathlib.Path({str(folder / "count")!r})
number = int(count.read_text()) if count.exists() else 0
count.write_text(str(number + 1))
sys.exit({codes!r}[number])
"""


@pytest.mark.parametrize("codes", [[0, 0, 80], [75, 1, 80], [77, 70, 80]])
def test_no_exit_code_but_a_final_one_ends_it(codes: list[int], tmp_path: Path) -> None:
    supervisor, said = supervise(ending_in(codes, tmp_path))
    assert supervisor.run(threading.Event()) == 80
    assert len(said) == 2


def test_a_killed_process_is_started_again(tmp_path: Path) -> None:
    program = f"""
import os, pathlib, sys
first = pathlib.Path({str(tmp_path / "first")!r})
if not first.exists():
    first.touch()
    os.kill(os.getpid(), {int(signal.SIGKILL)})
sys.exit(80)
"""
    supervisor, said = supervise(program)
    assert supervisor.run(threading.Event()) == 80
    assert "(-9)" in said[0]


@pytest.mark.parametrize("stubborn", [False, True])
def test_a_stop_ends_the_process_too(stubborn: bool, tmp_path: Path) -> None:
    ignoring = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)" if stubborn else ""
    ready = tmp_path / "ready"
    supervisor, _ = supervise(
        f"{ignoring}\nimport pathlib, os, time; pathlib.Path({str(ready)!r}).write_text(str(os.getpid())); time.sleep(60)"
    )
    supervisor.patience = 0.2
    stop = threading.Event()
    results: list[int | None] = []
    thread = threading.Thread(target=lambda: results.append(supervisor.run(stop)))
    thread.start()
    while not ready.exists() or not ready.read_text():
        time.sleep(0.01)
    stop.set()
    thread.join()
    assert results == [None]
    with pytest.raises(ProcessLookupError):
        os.kill(int(ready.read_text()), 0)


def test_waits_double_up_to_a_limit_and_start_anew_after_a_long_life() -> None:
    backoff = Backoff(first=1, longest=8, healthy=60)
    waits, wait = [], 0.0
    for lived in (1, 1, 1, 1, 1, 100, 1):
        wait = backoff.after(wait, lived)
        waits.append(wait)
    assert waits == [1, 2, 4, 8, 8, 1, 2]


def test_no_ending_but_that_of_a_member_no_more_is_final() -> None:
    assert {Ending.NOT_ENROLLED, Ending.REVOKED} <= FINAL
    assert not FINAL & {Ending.STOPPED, Ending.LOST, Ending.CLOCK, Ending.UNTRUSTED, Ending.REFUSED}


def test_the_process_that_watches_stays_small() -> None:
    program = "import sys, fl_client.take_part, fl_client.supervisor, fl_client.model_link\n"
    program += "print(sorted({'torch', 'opacus', 'flwr', 'scipy', 'matplotlib'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
    )
    assert done.stdout.strip() == "[]"
