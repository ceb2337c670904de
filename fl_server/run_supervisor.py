"""Runs the ServerApp in a process, and again from its checkpoint when it breaks. `service` looks after it."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fl_server.run_folder import RunFolder
from fl_server.server_folder import ServerFolder
from fl_server.superlink import Started, SuperLink
from fl_server.task import STOPPED, Task

State = Literal["no-run", "starting", "running", "finished", "failed"]


@dataclass
class ServerAppProcess:
    """Runs the ServerApp in a process, and again from its checkpoint when it breaks.

    Attributes:
        log_file: where its output goes.
    """

    folder: ServerFolder
    run: RunFolder
    link: SuperLink
    log_file: Path
    say: Callable[[str], None]
    state: State = "starting"
    _process: subprocess.Popen[bytes] | None = None
    _started: Started | None = None
    _again_at: float = 0.0
    _patience: float = 1.0
    _born: float = 0.0

    def look(self) -> None:
        """Start what should run, and see to what has ended."""
        if self.state in ("finished", "failed"):
            return
        if self._process is None:
            if time.monotonic() >= self._again_at:
                self._start()
            return
        code = self._process.poll()
        if code is not None:
            self._ended(code)

    def stop(self) -> None:
        """Ask it to end, and end it; the checkpoint holds all finished rounds."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._forget()

    def _start(self) -> None:
        self._started = self.link.start_run()
        task = Task(self._started.token, self.link.runtime_address, self.folder, self.run, os.getpid())
        with open(os.open(self.log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "fl_server.serverapp_process"],
                env=dict(os.environ) | task.environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self._born = time.monotonic()
        self.state = "running"

    def _ended(self, code: int) -> None:
        self._forget()
        if code == 0:
            self.state = "finished"
            self.say(f"All {self.run.config.server.rounds} rounds of {self.run.name} are done.")
        elif code < STOPPED and code > 0:
            self.state = "failed"
            self.say(f"The run {self.run.name} cannot go on; the end of {self.log_file} says why. Models are still served.")
        else:
            self._patience = 1.0 if time.monotonic() - self._born > 60 else min(self._patience * 2, 60.0)
            self._again_at = time.monotonic() + self._patience
            self.say(f"The ServerApp's process ended ({code}); it goes on from its checkpoint in {self._patience:.0f} s.")

    def _forget(self) -> None:
        if self._started is not None:
            self.link.end_run(self._started.run_id)
        self._process = self._started = None
