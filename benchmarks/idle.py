"""What a device and a server cost while they wait: `python -m benchmarks.idle [--seconds 120]`.

A real server and a real device on loopback, in a folder of their own. The run asks for five devices, so that no round begins.
CPU time is what the system counted for each process, so a machine that is busy with other work changes it little.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from benchmarks.sides import cpu_seconds
from common.console import command_line, out, run_command_line
from common.errors import RunError
from simulation.drawn_folder import draw_folder

SERVER = "from fl_server.cli import main; main()"
CLIENT = "from fl_client.cli import main; main()"
CONFIG = '[model]\nname = "mobilenet_v2_tiny_128"\nstem_stride = 2\n'
PATIENCE = 600

app = command_line("Measure what a waiting device and a waiting server cost.")


@dataclass(frozen=True)
class Usage:
    """One process at one moment.

    Attributes:
        resident: MB in memory; own: MB that no other process shares.
        cpu: seconds that the system counted, of user and system together.
        woken: how often it gave the processor away, and so was woken.
    """

    resident: float
    own: float
    cpu: float
    woken: int


def look(process: int) -> Usage:
    """What Linux tells of a process."""
    place = Path(f"/proc/{process}")
    memory = dict(line.split(":", 1) for line in (place / "smaps_rollup").read_text().splitlines()[1:])
    own = sum(int(memory[name].split()[0]) for name in ("Private_Clean", "Private_Dirty"))
    status = dict(line.split(":\t", 1) for line in (place / "status").read_text().splitlines() if ":\t" in line)
    woken = sum(
        int(line.split()[1])
        for task in (place / "task").iterdir()
        for line in (task / "status").read_text().splitlines()
        if line.startswith("voluntary_ctxt_switches")
    )
    return Usage(int(status["VmRSS"].split()[0]) / 1e3, own / 1e3, cpu_seconds(process), woken)


def child(process: int) -> int | None:
    """The process that another one started, if it did."""
    found = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return int(found[0]) if found else None


def until(what: Callable[[], bool], log: Path) -> None:
    """Wait.

    Raises:
        RunError: it did not come; `log` says why.
    """
    end = time.monotonic() + PATIENCE
    while not what():
        if time.monotonic() > end:
            raise RunError(f"Nothing came of it: {log.read_text()[-500:]}")
        time.sleep(0.2)


@app.command()
def idle(seconds: Annotated[float, typer.Option(min=1, help="For how long the waiting processes are watched.")] = 120.0) -> None:
    """Start a server and a device, let both wait, and print what they used."""
    with tempfile.TemporaryDirectory() as name:
        place, started = Path(name), []
        here = {"HOME": name, "XDG_STATE_HOME": name, "XDG_RUNTIME_DIR": name, "OMP_NUM_THREADS": "1"}
        (place / "fl.toml").write_text(CONFIG)
        draw_folder(place / "faces", 28, people=1, seed=1)

        def start(program: str, log: str, *words: str) -> tuple[int, Path]:
            file = place / log
            with open(file, "ab") as stream:
                process = subprocess.Popen(
                    [sys.executable, "-c", program, *words], env=dict(os.environ) | here, stdout=stream, stderr=stream
                )
            started.append(process)
            return process.pid, file

        try:
            ports = ("--host", "127.0.0.1", "--port", "0", "--min-clients", "5", "--config", str(place / "fl.toml"))
            server, said = start(SERVER, "server.log", "start", "--dir", str(place / "server"), *ports)
            until(lambda: "Listening" in said.read_text(), said)
            until(lambda: child(server) is not None and (place / "server" / "registry" / "LATEST").exists(), said)
            device, told = start(CLIENT, "device.log", "--data", str(place / "faces"), "--name", "idle")
            until(lambda: "Connected to" in told.read_text(), told)
            until(lambda: (place / "faces" / ".emofl" / "registry" / "LATEST").exists(), told)
            time.sleep(10)
            watched = {"device: supervisor": device, "device: node": child(device), "server": server, "ServerApp": child(server)}
            processes = {what: process for what, process in watched.items() if process is not None}
            before, began = {what: look(process) for what, process in processes.items()}, time.monotonic()
            time.sleep(seconds)
            after, passed = {what: look(process) for what, process in processes.items()}, time.monotonic() - began
        finally:
            for process in reversed(started):
                process.send_signal(signal.SIGTERM)
                process.wait(60)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("Waiting process", "Resident, MB", "Its own, MB", "CPU, % of a core", "Woken, a second"):
        table.add_column(title, justify="left" if title.startswith("Waiting") else "right")
    for what, now in after.items():
        then = before[what]
        cpu, woken = 100 * (now.cpu - then.cpu) / passed, (now.woken - then.woken) / passed
        table.add_row(what, f"{now.resident:.0f}", f"{now.own:.0f}", f"{cpu:.2f}", f"{woken:.1f}")
    out.print(table)


if __name__ == "__main__":
    run_command_line(app)
