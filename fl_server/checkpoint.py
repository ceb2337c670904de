"""Everything a run needs to go on after a crash, in one safetensors file that is replaced whole after each round."""

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from common.arrays import Arrays
from common.canonical import encode, sha256
from common.config import RunConfig
from common.errors import RunError
from common.files import write_atomic
from fl_server.average import shown

FORMAT = "emofl-checkpoint-1"
COPIES, SPARE = 4, 8 * 2**20


def lacks_room(path: Path) -> bool:
    """Whether the disk of a run's checkpoint is too full for what a round leaves there.

    That is the next checkpoint beside this one, the published model in two formats, and `SPARE` bytes for tables and logs.
    """
    size = path.stat().st_size if path.exists() else 0
    return shutil.disk_usage(path.parent).free < COPIES * size + SPARE


def config_digests(config: RunConfig) -> tuple[str, str]:
    """SHA-256 of what in a configuration is not as by default; and of all of it.

    The first stays what it was when a later version brings one more setting, the second when one changes a default, since a run's
    folder holds all of its settings: so a run outlives the server's upgrade. Checkpoints had the second alone at first, so what
    came after that is left out of it while it is as by default.
    """
    later = {"server": {"keep_models"}} if config.server.keep_models is None else None
    return (
        sha256(encode(config.model_dump(mode="json", exclude_defaults=True))),
        sha256(encode(config.model_dump(mode="json", exclude=later))),
    )


@dataclass
class Checkpoint:
    """A run after a round.

    Attributes:
        run: its name.
        config_digests: of its configuration; one with neither of them must not go on with it.
        round: the last finished round, 0 before the first.
        weights: all parameters of the global model.
        server_state: what the server's optimiser remembers.
        history: one plain record per finished round.
    """

    run: str
    config_digests: tuple[str, ...]
    round: int
    weights: Arrays
    server_state: dict[str, np.ndarray] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)

    def shown(self) -> Arrays:
        """The model to evaluate and publish."""
        return shown(self.weights, self.server_state)

    def save(self, path: Path) -> None:
        """Replace `path` atomically.

        Raises:
            RunError: it cannot be written, as on a full disk; the checkpoint before it stays.
        """
        digests = list(self.config_digests)
        meta = {"format": FORMAT, "run": self.run, "config": digests, "round": self.round, "history": self.history}
        tensors = {f"weights/{name}": value for name, value in self.weights.items()}
        tensors |= {f"server/{name}": np.asarray(value) for name, value in self.server_state.items()}
        try:
            write_atomic(path, save(tensors, metadata={"emofl": json.dumps(meta)}))
        except OSError as error:
            raise RunError(f"The checkpoint {path} cannot be written: {error.strerror or error}.") from error

    @classmethod
    def load(cls, path: Path) -> "Checkpoint":
        """Read a checkpoint.

        Raises:
            RunError: the file is missing, damaged or of another format.
        """
        try:
            content = path.read_bytes()
            tensors = load(content)
            header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
            meta = json.loads(header["__metadata__"]["emofl"])
            if meta["format"] != FORMAT:
                raise RunError(f"The checkpoint {path} is of format {meta['format']}; this version reads {FORMAT}.")
            kinds: dict[str, dict[str, np.ndarray]] = {"weights": {}, "server": {}}
            for name, value in tensors.items():
                kind, _, rest = name.partition("/")
                kinds[kind][rest] = value
            digests = (meta["config"],) if isinstance(meta["config"], str) else tuple(map(str, meta["config"]))
            return cls(meta["run"], digests, int(meta["round"]), kinds["weights"], kinds["server"], list(meta["history"]))
        except OSError as error:
            raise RunError(f"There is no checkpoint to go on from at {path}.") from error
        except (SafetensorError, ValueError, KeyError, TypeError) as error:
            raise RunError(f"The checkpoint {path} is damaged ({type(error).__name__}).") from error
