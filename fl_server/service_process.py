"""The server's main process: `python -m fl_server.service_process`. `fl-server start` becomes it, to shed what it had imported.

Checking a run's settings needs torch; serving does not, and torch is several hundred megabytes.
"""

import json
import logging
import os
import sys
import threading
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from common.console import err, run_command_line
from common.errors import DependencyError, RunError

if TYPE_CHECKING:
    from fl_server.plan import Plan

PLAN = "EMOFL_PLAN"


def become(plan: "Plan") -> NoReturn:
    """Replace this process by the server's. It keeps the process id and the terminal."""
    text = json.dumps(asdict(plan) | {"run": None if plan.run is None else plan.run.path}, default=str)
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, [sys.executable, "-P", "-m", __name__], dict(os.environ) | {PLAN: text})


def taken_plan() -> "Plan":
    """The plan that `become` left.

    Raises:
        RunError: this process was started by somebody else.
    """
    from fl_server.plan import Plan
    from fl_server.run_folder import RunFolder

    try:
        values = json.loads(os.environ.pop(PLAN))
        run = RunFolder(Path(values.pop("run"))) if values["run"] else values.pop("run")
        return Plan(Path(values.pop("folder")), names=tuple(values.pop("names")), run=run, **values)
    except (KeyError, ValueError, TypeError) as error:
        raise RunError("This program is started by `fl-server start` alone.") from error


def main() -> None:
    """Serve what the plan says.

    Raises:
        DependencyError: what this needs is not installed whole.
    """
    try:
        _serve()
    except ImportError as error:
        raise DependencyError(f"The server cannot be loaded ({error}): install emofl again, with all it needs.") from error


def _serve() -> None:
    from common.flower_log import log_to
    from common.processes import open_more_files, stopping_signals
    from fl_server.plan import LOG
    from fl_server.server_folder import ServerFolder
    from fl_server.service import serve

    plan = taken_plan()
    open_more_files()
    log_file = ServerFolder.prepare(plan.folder).path / LOG
    stop = threading.Event()
    with open(os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "a") as stream:
        log_to(stream, flower=logging.ERROR)
        with stopping_signals(stop):
            state = serve(plan, lambda sentence: err.print(sentence, markup=False, soft_wrap=True), stop)
        logging.shutdown()
    if state == "failed":
        raise RunError(f"The run failed; the end of {log_file} says why.")
    err.print("The server has stopped.")


if __name__ == "__main__":
    run_command_line(main)
