"""Keeps the process that takes part alive: starts it, reads why it ended, waits, starts it again. `take_part` runs it."""

import logging
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

log = logging.getLogger("emofl.client")

LOOK = 0.2


@dataclass(frozen=True)
class Backoff:
    """How long to wait before another start, in seconds.

    Attributes:
        first, longest: the wait doubles from one to the other.
        healthy: a process that lived this long starts the waits anew.
    """

    first: float = 1.0
    longest: float = 60.0
    healthy: float = 60.0

    def after(self, wait: float, lived: float) -> float:
        """The next wait, after one of `wait` seconds (0: none yet) and a life of `lived`."""
        return self.first if wait == 0 or lived >= self.healthy else min(2 * wait, self.longest)


@dataclass
class Supervisor:
    """One process at a time.

    Attributes:
        command, environment: of the process.
        final: exit codes after which it is not started again. 0 is not one of them by itself: a process that ends without
            being asked to has a reason, whatever its exit code says.
        say: gets a sentence before each wait.
        patience: seconds from asking the process to end to ending it.
    """

    command: Sequence[str]
    environment: Mapping[str, str]
    final: frozenset[int]
    say: Callable[[str], None]
    backoff: Backoff = Backoff()
    patience: float = 5.0

    def run(self, stop: threading.Event) -> int | None:
        """Until `stop` is set, or the process ends for good; its exit code then, else None."""
        wait = 0.0
        while not stop.is_set():
            born = time.monotonic()
            code = self._once(stop)
            if stop.is_set():
                return None
            if code in self.final:
                return code
            wait = self.backoff.after(wait, time.monotonic() - born)
            self.say(f"Not taking part at the moment ({code}); next try in {wait:.0f} s.")
            stop.wait(wait)
        return None

    def _once(self, stop: threading.Event) -> int:
        # A session of its own: Ctrl-C reaches this process alone, which then ends the other in order.
        with subprocess.Popen(
            self.command, env=dict(self.environment), stdin=subprocess.DEVNULL, start_new_session=True
        ) as process:
            try:
                while process.poll() is None and not stop.wait(LOOK):
                    pass
            finally:
                if process.poll() is None:
                    process.terminate()
                    try:
                        process.wait(self.patience)
                    except subprocess.TimeoutExpired:
                        process.kill()
            return process.wait()
