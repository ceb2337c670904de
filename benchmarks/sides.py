"""Programs that take turns: each waits for a line before it works and prints a line of JSON after it. Benchmarks use `Side`."""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from common.errors import DependencyError

TICKS = os.sysconf("SC_CLK_TCK")


def tell(**values: object) -> None:
    """For the program: a line of JSON."""
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


def await_turn() -> None:
    """For the program: wait until it may go on."""
    if not sys.stdin.readline():
        raise SystemExit(0)


def stat(process: int) -> list[str]:
    """What Linux counts of a process, from its state on: [1] is its parent, [11] and [12] its CPU ticks, [13] and [14] those
    of its ended children."""
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()


def cpu_seconds(process: int) -> float:
    """Of a process alone, in user and system."""
    return sum(map(int, stat(process)[11:13])) / TICKS


def tree_cpu(root: int) -> float:
    """CPU seconds of a process and all that live below it, and of their ended children."""
    parents, spent = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = stat(int(entry.name))
            except OSError:
                continue
            parents[int(entry.name)] = int(fields[1])
            spent[int(entry.name)] = sum(map(int, fields[11:15])) / TICKS

    def below(process: int) -> bool:
        while process in parents:
            if process == root:
                return True
            process = parents[process]
        return False

    return sum(cpu for process, cpu in spent.items() if below(process))


class Side:
    """One program. `start` says what it took until it was ready, `rounds` what each of its turns took."""

    def __init__(self, name: str, command: list[str]) -> None:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd(), "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}
        self.name, self.rounds = name, list[dict[str, float]]()
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True, env=environment
        )
        began = time.monotonic()
        self._hear("ready")
        self.start = {"wall_s": time.monotonic() - began, "cpu_s": tree_cpu(self._process.pid)}

    def turn(self) -> None:
        """One round."""
        before = tree_cpu(self._process.pid)
        self._go()
        wall = self._hear("wall")
        self.rounds.append({"cpu_s": tree_cpu(self._process.pid) - before, "wall_s": wall})

    def ask(self, what: str) -> float:
        """Let it go on until it tells `what`, untimed."""
        self._go()
        return self._hear(what)

    def end(self) -> None:
        """Let it go home; after a minute it is ended."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        watchdog = threading.Timer(60, self._process.kill)
        watchdog.start()
        self._process.wait()
        watchdog.cancel()
        self._log.close()

    def _go(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.write("\n")
            self._process.stdin.flush()

    def _hear(self, what: str) -> float:
        for line in self._process.stdout or ():
            try:
                told = json.loads(line)
            except ValueError:
                continue
            if isinstance(told, dict) and what in told:
                return float(told[what])
        self._log.seek(0)
        last = self._log.read().strip().splitlines()[-1:]
        raise DependencyError(f"The side {self.name} of the benchmark ended: {last[0] if last else 'without a word'}")
