"""What anybody on the network may know about a server, read from its folder. `fl_server.pages` shows it.

Of a device nothing is read but how many answered the last round; that number stands in the signed manifest as well.
"""

import os
import stat
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from common.canonical import decode
from common.config import RunConfig
from common.errors import EmoflError, IntegrityError
from common.files import read_plain
from common.identity import PublicKey
from fl_server.run_folder import METRICS, RunFolder
from fl_server.server_folder import Endpoint, ServerFolder
from fl_server.server_lock import read_status
from models.manifest import MANIFEST, SIGNATURE, VERSION_NAME, Manifest
from models.published import LATEST, VERSIONS, of_latest, read_manifest, version_names

METRICS_LIMIT = 16 * 2**20
MOST_VERSIONS = 100
"""Newest versions that are listed; older ones can be downloaded by name while the registry keeps them."""

STATES = {
    "no-run": "Serving models; no run",
    "starting": "Starting",
    "running": "Training",
    "finished": "Finished",
    "failed": "Stopped by an error",
}


@dataclass(frozen=True)
class Point:
    """A finished round: devices whose updates are in it, and accuracies on the public set if there is one, 0 to 1."""

    round: int
    devices: int
    accuracy: float | None
    balanced_accuracy: float | None

    @classmethod
    def of(cls, record: dict[str, Any]) -> Self:
        """From a line of metrics.jsonl; of all its keys these four are taken."""
        return cls(
            int(record["round"]),
            int(record["accepted"]),
            _part(record.get("accuracy")),
            _part(record.get("balanced_accuracy")),
        )


@dataclass(frozen=True)
class Run:
    """The server's latest run.

    Attributes:
        state: a key of STATES.
        rounds: how many it is to have.
        points: of the finished rounds, 0 for the model before the first.
        evaluated_on: faces of the public set, None without one.
    """

    state: str
    config: RunConfig
    points: tuple[Point, ...]
    evaluated_on: int | None

    @property
    def rounds(self) -> int:
        return self.config.server.rounds

    @property
    def private(self) -> bool:
        """Whether it promises anything, for a face or for a device."""
        return self.config.privacy.private or self.config.client_level.mode != "none"

    @property
    def noise_on_devices(self) -> bool:
        """Whether every device adds noise before it sends."""
        return self.config.privacy.private or self.config.client_level.mode == "distributed"

    @property
    def secure_sum(self) -> bool:
        """Whether the server learns sums of updates alone."""
        return self.config.upload.secure

    @property
    def last(self) -> Point | None:
        return self.points[-1] if self.points else None


@dataclass(frozen=True)
class Version:
    """A published version: its signed manifest, and that file's SHA-256."""

    manifest: Manifest
    manifest_sha256: str

    @property
    def name(self) -> str:
        return self.manifest.version

    def hash_of(self, file: str) -> str | None:
        """SHA-256 of one of the version's files; None for a name that is none of them."""
        if file == MANIFEST:
            return self.manifest_sha256
        return next((entry.sha256 for name, entry in self.manifest.files.items() if name == file), None)


@dataclass(frozen=True)
class Facts:
    """Everything the pages say that can change.

    Attributes:
        versions: newest first, at most MOST_VERSIONS.
        trouble: what cannot be shown at the moment, a sentence each; they name no path.
    """

    endpoint: Endpoint | None
    run: Run | None
    versions: tuple[Version, ...]
    trouble: tuple[str, ...] = ()

    @property
    def newest(self) -> Version | None:
        return self.versions[0] if self.versions else None

    def as_json(self) -> dict[str, Any]:
        """For /status.json."""
        run, newest = self.run, self.newest
        last = run.last if run else None
        model = None
        if newest is not None:
            manifest = newest.manifest
            model = {
                "version": newest.name,
                "round": manifest.round,
                "created": manifest.created,
                "manifest_sha256": newest.manifest_sha256,
                "files": {name: entry.model_dump(mode="json") for name, entry in manifest.files.items()},
                "private": manifest.privacy.private,
                "epsilon": manifest.privacy.epsilon,
                "delta": manifest.privacy.delta,
                "statement": manifest.privacy.statement,
                "client_statement": manifest.client_privacy.statement if manifest.client_privacy else None,
            }
        return {
            "state": run.state if run else "no-run",
            "round": last.round if last else None,
            "rounds": run.rounds if run else None,
            "last_round": asdict(last) if last else None,
            "model": model,
        }


class FactsReader:
    """Reads the facts, doing again only what may have changed. One thread at a time uses it.

    Args:
        publisher: whose signature counts; a version without it is not shown.
    """

    def __init__(self, folder: ServerFolder, publisher: PublicKey) -> None:
        self._folder, self._publisher = folder, publisher
        self._versions: dict[str, tuple[object, Version]] = {}
        self._points: tuple[object, tuple[Point, ...], int | None] = (None, (), None)

    def read(self) -> Facts:
        """The facts now. What cannot be read is left out and said in `trouble`."""
        trouble: list[str] = []
        endpoint: Endpoint | None = None
        run: Run | None = None
        versions: tuple[Version, ...] = ()
        try:
            endpoint = self._folder.read_endpoint()
        except (EmoflError, OSError):
            trouble.append("The server's address is not known yet.")
        try:
            run = self._read_run()
        except (EmoflError, OSError, ValueError, KeyError, TypeError, AttributeError):
            trouble.append("The state of the run cannot be read at the moment.")
        try:
            versions = self._read_versions()
        except (EmoflError, OSError):
            trouble.append("The published models cannot be read at the moment.")
        return Facts(endpoint, run, versions, tuple(trouble))

    def _read_run(self) -> Run | None:
        run = RunFolder.latest(self._folder.path)
        if run is None:
            return None
        path = run.path / METRICS
        seen = signature(path)
        if seen != self._points[0]:
            lines = read_plain(path, METRICS_LIMIT).splitlines(keepends=True) if seen else []
            records = [decode(line) for line in lines]
            evaluated = [record["evaluated_on"] for record in records if "evaluated_on" in record]
            self._points = seen, tuple(map(Point.of, records)), int(evaluated[-1]) if evaluated else None
        state = str(read_status(self._folder.path).get("state"))
        return Run(state if state in STATES else "starting", run.config, *self._points[1:])

    def _read_versions(self) -> tuple[Version, ...]:
        registry = self._folder.registry
        if not os.path.lexists(registry / LATEST):
            return ()
        return of_latest(registry, self._up_to)

    def _up_to(self, latest: str) -> tuple[Version, ...]:
        names = version_names(self._folder.registry)
        if latest not in names:
            raise IntegrityError("The newest version is missing.")
        names = names[: names.index(latest) + 1][-MOST_VERSIONS:]
        self._versions = {name: known for name, known in self._versions.items() if name in names}
        found = [version for name in reversed(names) if (version := self._known(name)) is not None]
        if not found or found[0].name != latest:
            raise IntegrityError("The newest version does not hold.")
        return tuple(found)

    def _known(self, name: str) -> Version | None:
        folder = self._folder.registry / VERSIONS / name
        seen = signature(folder / MANIFEST), signature(folder / SIGNATURE)
        if name not in self._versions or self._versions[name][0] != seen:
            version = read_signed(folder, self._publisher)
            if version is None:
                return None
            self._versions[name] = seen, version
        return self._versions[name][1]


def read_signed(folder: Path, publisher: PublicKey) -> Version | None:
    """The version in `folder`, if its name is one and `publisher` signed its manifest."""
    if not VERSION_NAME.fullmatch(folder.name):
        return None
    try:
        manifest, digest = read_manifest(folder, publisher)
    except (EmoflError, OSError):
        return None
    return Version(manifest, digest) if manifest.version == folder.name else None


def signature(path: Path) -> tuple[int, int, int, int] | None:
    """What changes whenever a plain file does; None where there is none."""
    try:
        found = path.lstat()
    except OSError:
        return None
    return (found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size) if stat.S_ISREG(found.st_mode) else None


def _part(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and 0 <= value <= 1 else None
