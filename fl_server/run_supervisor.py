"""Runs the ServerApp in a process, and again from its checkpoint when it breaks. `service` looks after it."""

import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from common.errors import EmoflError
from fl_server.checkpoint import lacks_room
from fl_server.replies import MOST_BYTES
from fl_server.run_folder import CHECKPOINT, RunFolder
from fl_server.server_folder import ServerFolder
from fl_server.superlink import Started, SuperLink
from fl_server.task import STOPPED, Task

log = logging.getLogger("emofl.server")

SLACK = 2 * 2**20
KEEP_ALIVE = 5.0

State = Literal["no-run", "starting", "running", "finished", "failed"]


def most_reply_bytes(run: RunFolder) -> int:
    """What a device's reply may have: three times the run's checkpoint, which holds the model, and some for what is beside it."""
    try:
        return 3 * (run.path / CHECKPOINT).stat().st_size + SLACK
    except FileNotFoundError:
        return MOST_BYTES


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
    _told: float = 0.0
    _full: bool = False

    def look(self) -> None:
        """Start what should run, and see to what has ended; say when the disk is full, and when it no longer is."""
        if self.state in ("finished", "failed"):
            return
        self._look_at_disk()
        if self._process is None:
            if time.monotonic() >= self._again_at:
                self._start()
            return
        code = self._process.poll()
        if code is not None:
            self._ended(code)
        elif self._started is not None and time.monotonic() - self._told > KEEP_ALIVE:
            # On a slow machine the process is still loading when Flower's patience ends.
            self.link.keep_alive(self._started)
            self._told = time.monotonic()

    def _look_at_disk(self) -> None:
        try:
            full = lacks_room(self.run.path / CHECKPOINT)
        except OSError:
            return
        if full and not self._full:
            self.say(f"There is no room left on the disk of {self.folder.path}: the next round waits until there is.")
        elif self._full and not full:
            self.say("There is room again; the rounds go on.")
        self._full = full

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
        try:
            self._forget()
            self._started = self.link.start_run(lambda: most_reply_bytes(self.run))
            self._process = self._spawn(self._started)
        except Exception as error:
            self._wait_longer()
            plain = isinstance(error, EmoflError | OSError)
            log.warning("the ServerApp's process does not start", exc_info=None if plain else error)
            why = (getattr(error, "strerror", None) or str(error)) if plain else type(error).__name__
            self.say(f"The ServerApp's process does not start ({why.rstrip('.')}); it is tried again in {self._patience:.0f} s.")
            with suppress(Exception):
                self._forget()
            return
        self._born = time.monotonic()
        self.state = "running"

    def _spawn(self, started: Started) -> subprocess.Popen[bytes]:
        task = Task(started.token, self.link.runtime_address, self.folder, self.run, os.getpid())
        with open(os.open(self.log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as output:
            return subprocess.Popen(
                [sys.executable, "-P", "-m", "fl_server.serverapp_process"],
                env=dict(os.environ) | task.environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def _ended(self, code: int) -> None:
        self._forget()
        if code == 0:
            self.state = "finished"
            self.say(f"All {self.run.config.server.rounds} rounds of {self.run.name} are done.")
        elif code < STOPPED and code > 0:
            self.state = "failed"
            self.say(f"The run {self.run.name} cannot go on; the end of {self.log_file} says why. Models are still served.")
        else:
            if time.monotonic() - self._born > 60:
                self._patience = 0.5
            self._wait_longer()
            self.say(f"The ServerApp's process ended ({code}); it goes on from its checkpoint in {self._patience:.0f} s.")

    def _wait_longer(self) -> None:
        self._patience = min(self._patience * 2, 60.0)
        self._again_at = time.monotonic() + self._patience

    def _forget(self) -> None:
        if self._started is not None:
            self.link.end_run(self._started.run_id)
        self._process = self._started = None
