"""What a ServerApp process is started for, and how it is told. `service` writes it, `serverapp_process` reads it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from common.errors import RunError
from fl_server.run_folder import RunFolder
from fl_server.server_folder import ServerFolder

TOKEN, RUNTIME, FOLDER, RUN, PARENT = (
    "EMOFL_TASK_TOKEN",
    "EMOFL_RUNTIME",
    "EMOFL_SERVER_FOLDER",
    "EMOFL_RUN_FOLDER",
    "EMOFL_PARENT",
)
STOPPED, CRASHED = 64, 70


@dataclass(frozen=True)
class Task:
    """What the process was started for.

    Attributes:
        token: makes it the ServerApp of one run.
        runtime: address of the Runtime API on loopback.
        folder, run: of the server, and of the run in it.
        parent: process id of the server, with which the process ends.
    """

    token: str
    runtime: str
    folder: ServerFolder
    run: RunFolder
    parent: int

    def environment(self) -> dict[str, str]:
        """Variables that hand the task to a new process; nobody else sees another process's environment."""
        return {
            TOKEN: self.token,
            RUNTIME: self.runtime,
            FOLDER: str(self.folder.path),
            RUN: str(self.run.path),
            PARENT: str(self.parent),
        }

    @classmethod
    def take(cls, environment: Mapping[str, str]) -> "Task":
        """As `environment` wrote it.

        Raises:
            RunError: this process was started by somebody else.
        """
        try:
            folder, run = ServerFolder(Path(environment[FOLDER])), RunFolder(Path(environment[RUN]))
            return cls(environment[TOKEN], environment[RUNTIME], folder, run, int(environment[PARENT]))
        except (KeyError, ValueError) as error:
            raise RunError(f"{error} is not set: this program is started by `fl-server start` alone.") from error
