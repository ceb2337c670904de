"""Where a deployed run lives: its name, configuration, checkpoint and metrics. `serverapp_process` runs it."""

import secrets
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from common.canonical import decode, encode
from common.config import RunConfig, make_config
from common.errors import EmoflError, RunError
from common.files import write_atomic

CONFIG, RUNS, LATEST = "config.json", "runs", "latest-run"
CHECKPOINT, METRICS = "checkpoint.safetensors", "metrics.jsonl"
"""As `fl_server.rounds` names them; importing it takes seconds."""


@dataclass(frozen=True)
class RunFolder:
    """One run: config.json, checkpoint.safetensors, metrics.jsonl."""

    path: Path

    @classmethod
    def create(cls, server: Path, config: RunConfig, now: datetime) -> Self:
        """A new run, which becomes the latest.

        Raises:
            ModelError, ConfigError, IntegrityError: it could not start.
        """
        from models.mobilenet import build_model
        from models.starting_point import pin_start, starting_point

        build_model(config.model)
        start = starting_point(config)
        name = f"{now:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
        path = server / RUNS / name
        path.mkdir(parents=True, mode=0o700)
        pin_start(start, path)
        write_atomic(path / CONFIG, encode({"run": name, "config": config.model_dump(mode="json")}))
        found = cls(path)
        found.become_latest()
        return found

    def become_latest(self) -> None:
        """Be the run that the next start goes on with.

        Whoever serves a run says so again: of two starts at once one serves, and the other has made a run, too.
        """
        write_atomic(self.path.parent.parent / LATEST, f"{self.name}\n".encode())

    @classmethod
    def latest(cls, server: Path) -> Self | None:
        """The run that `create` made last, or None.

        Raises:
            RunError: it is gone.
        """
        pointer = server / LATEST
        if not pointer.exists():
            return None
        path = server / RUNS / pointer.read_text().strip()
        if path.parent != server / RUNS or not (path / CONFIG).is_file():
            raise RunError(f"{pointer} names a run that is not there; restore it, or start with --new.")
        return cls(path)

    @property
    def name(self) -> str:
        """The run's name, written into ledgers and manifests."""
        return self.path.name

    @property
    def config(self) -> RunConfig:
        """The run's configuration.

        Raises:
            RunError: the file is damaged.
        """
        try:
            return make_config(dict(decode((self.path / CONFIG).read_bytes())["config"]))
        except (OSError, EmoflError, KeyError, TypeError, ValueError) as error:
            raise RunError(f"{self.path / CONFIG} is damaged; this run cannot go on.") from error

    @property
    def done(self) -> int:
        """How many rounds are finished."""
        from fl_server.checkpoint import Checkpoint

        checkpoint = self.path / CHECKPOINT
        return Checkpoint.load(checkpoint).round if checkpoint.exists() else 0

    def records(self) -> list[dict[str, Any]]:
        """What is known of each finished round, the start among them."""
        metrics = self.path / METRICS
        return [decode(line) for line in metrics.read_bytes().splitlines(keepends=True)] if metrics.exists() else []
