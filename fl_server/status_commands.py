"""`fl-server status | stop`: a look at the running server, and its end. `fl_server.cli` mounts these commands.

Libraries are imported when a command needs them, so that both answer at once.
"""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from common.console import out, print_json
from common.errors import RunError
from common.places import state_home
from fl_server.addresses import with_port

STOP_SECONDS = 60
"""For which `stop` waits: the ServerApp's process has 10 s to end, the device API 1, each of two HTTP ports 10."""

Folder = Annotated[Path | None, typer.Option("--dir", help="The server's folder (default: ~/.local/state/emofl/server).")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def server_home(given: Path | None) -> Path:
    """The server's folder, as an absolute path."""
    return (given or state_home() / "server").expanduser().resolve()


def status(folder: Folder = None, as_json: Json = False) -> None:
    """Say whether the server runs, how far its run is, and which devices are there."""
    from fl_server.run_folder import RunFolder
    from fl_server.server_lock import read_status, running_server

    home = server_home(folder)
    process = running_server(home)
    said = read_status(home)
    run = RunFolder.latest(home)
    records = run.records() if run else []
    last = records[-1] if records else {}
    known: dict[str, Any] = {
        "dir": str(home),
        "running": process is not None,
        "process": process,
        "address": said.get("address"),
        "port": said.get("port"),
        "run": run.name if run else None,
        "state": said.get("state") if process else "stopped",
        "round": last.get("round"),
        "rounds": run.config.server.rounds if run else None,
        "asked": last.get("asked"),
        "accepted": last.get("accepted"),
        "left_out": last.get("left_out"),
        "accuracy": last.get("accuracy"),
        "online": said.get("online", []) if process else [],
    }
    if as_json:
        print_json(known)
        return
    where = escape(with_port(known["address"], known["port"])) if said.get("port") else "starting"
    table = Table(show_header=False, box=None)
    table.add_row("server", f"running, process {process}, {where}" if process else "not running")
    table.add_row("folder", escape(str(home)))
    if run:
        table.add_row("run", f"{run.name}, {known['state']}, {known['round'] or 0} of {known['rounds']} rounds done")
        if known["round"]:
            table.add_row("last round", f"{known['accepted']} of {known['asked']} devices" + _left_out(known["left_out"]))
    table.add_row("online", escape(", ".join(known["online"])) or "no device")
    out.print(table)


def stop(folder: Folder = None, as_json: Json = False) -> None:
    """End the server; finished rounds are kept, and `fl-server start` goes on from there."""
    from fl_server.plan import LOG
    from fl_server.server_lock import running_server

    home = server_home(folder)
    process = running_server(home)
    if process is None:
        raise RunError(f"No server runs with {home}.")
    with suppress(ProcessLookupError):
        os.kill(process, signal.SIGTERM)
    end = time.monotonic() + STOP_SECONDS
    while running_server(home) == process:
        if time.monotonic() > end:
            raise RunError(
                f"The server (process {process}) is still ending after {STOP_SECONDS} seconds. Leave it to it, or end it with "
                f"`kill -9 {process}`: only the round in progress is lost, and `fl-server start` goes on. Log: {home}/{LOG}."
            )
        time.sleep(0.1)
    if as_json:
        print_json({"dir": str(home), "stopped": True, "process": process})
    else:
        out.print("The server has stopped.")


def _left_out(reasons: dict[str, int] | None) -> str:
    return "" if not reasons else "; left out: " + ", ".join(f"{count} {reason}" for reason, count in reasons.items())
