"""What the processes of `benchmarks.transport` share: how large a round is, where a pass keeps its things, what one used."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from common.arrays import Arrays

Way = Literal["emofl", "flower"]

PATIENCE = 120.0
ROUND = 1200.0
"""Seconds for which processes, and whole rounds, are waited for."""


@dataclass(frozen=True)
class Setup:
    """How many devices answer how many rounds, and with how many float32 values in how many arrays."""

    devices: int
    values: int
    rounds: int
    arrays: int

    @property
    def megabytes(self) -> float:
        return 4 * self.values / 1e6

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of the arrays: each third one is large."""
        large = (self.arrays + 2) // 3
        small, each = 32, (self.values - 32 * (self.arrays - large)) // large
        return {f"layer{i:03d}": (each,) if i % 3 == 0 else (small,) for i in range(self.arrays)}

    def model(self, seed: int) -> "Arrays":
        random = np.random.default_rng(seed)
        return {name: random.standard_normal(shape, dtype=np.float32) * np.float32(1e-3) for name, shape in self.shapes.items()}


@dataclass
class Usage:
    """Of a process: CPU seconds while the rounds went on, and MiB before them and at its peak."""

    cpu: float
    before: float
    peak: float

    @property
    def growth(self) -> float:
        return self.peak - self.before


@dataclass
class Place:
    """Where one pass keeps its things: certificates, keys, state."""

    folder: Path
    setup: Setup

    @property
    def ca(self) -> Path:
        return self.folder / "ca.pem"

    @property
    def certificate(self) -> Path:
        return self.folder / "server.pem"

    @property
    def key(self) -> Path:
        return self.folder / "server.key"

    def device_key(self, number: int) -> Path:
        return self.folder / f"device{number}.key"

    def prepare(self) -> None:
        from datetime import UTC, datetime

        from common.certificates import CertificateAuthority, certificate_pem, key_pem, new_key

        now, key = datetime.now(UTC), new_key()
        authority = CertificateAuthority.create(now)
        self.ca.write_bytes(certificate_pem(authority.certificate))
        self.certificate.write_bytes(certificate_pem(authority.issue_server(key.public_key(), ["127.0.0.1"], now)))
        self.key.write_bytes(key_pem(key))
        for number in range(self.setup.devices):
            self.device_key(number).write_bytes(key_pem(new_key()))

    def public_keys(self) -> list[bytes]:
        from common.certificates import load_key, public_pem

        return [public_pem(load_key(self.device_key(number).read_bytes()).public_key()) for number in range(self.setup.devices)]


def resident(process: int) -> tuple[float, float]:
    """MiB of memory that a process has now, and had at most."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    found = {line.split(":")[0]: line.split()[1] for line in lines if line.startswith(("VmRSS", "VmHWM"))}
    return int(found["VmRSS"]) / 1024, int(found["VmHWM"]) / 1024


def be_quiet() -> None:
    import flwr.supercore  # noqa: F401  (sets its own level)

    logging.getLogger("flwr").setLevel(logging.ERROR)
