"""What the command and the process it watches over both know: settings, exit codes, names of files. Free of Flower and torch.

`fl_client.take_part` writes the settings, `fl_client.node_process` takes them; the second ends with an `Ending`.
"""

from collections.abc import Mapping
from enum import IntEnum
from pathlib import Path

from pydantic import Field

from common.config import Settings
from common.errors import ConfigError, RunError

VARIABLE = "EMOFL_NODE"
REGISTRY, LOCK = "registry", "lock"
LEDGER, POLICY = "ledger.jsonl", "policy.toml"
"""Names in a device's home."""

CHUNK_KIB = 512
"""Default size of the pieces in which an update travels, two at a time. Each has 180 s to arrive: 6 KiB/s are enough."""


class Ending(IntEnum):
    """How a connection ended; also the exit code of the process that held it."""

    STOPPED = 0
    LOST = 75
    NOT_ENROLLED = 76
    CLOCK = 77
    UNTRUSTED = 78
    REFUSED = 79
    REVOKED = 80


FINAL = frozenset({int(Ending.NOT_ENROLLED), int(Ending.REVOKED), ConfigError.exit_code})
"""Exit codes after which the process is not started again."""


class NodeSettings(Settings):
    """What the process is told.

    Attributes:
        home: membership, ledger and policy.
        data: the folder of faces.
        threads: for training.
        nice: how much lower its priority is.
        only_when_charging: ask for no work on battery.
        chunk_size: KiB, of the pieces in which an update travels.
        poll: seconds between questions for work.
        parent: process id of the supervisor, with which this process ends; None for none.
    """

    home: Path
    data: Path
    threads: int = 1
    nice: int = 0
    only_when_charging: bool = False
    chunk_size: int = Field(default=CHUNK_KIB, ge=64, le=5120)
    poll: float = 3.0
    parent: int | None = None

    def environment(self) -> dict[str, str]:
        """Variables that hand the settings to the process."""
        return {VARIABLE: self.model_dump_json(), "OMP_NUM_THREADS": str(self.threads)}

    @classmethod
    def take(cls, environment: Mapping[str, str]) -> "NodeSettings":
        """As `environment` wrote it.

        Raises:
            RunError: this process was started by somebody else.
        """
        try:
            return cls.model_validate_json(environment[VARIABLE])
        except (KeyError, ValueError) as error:
            raise RunError("This program is started by `fl-client --data DIR` alone.") from error
