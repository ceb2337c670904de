"""Small published models for the tests of manifest, registry, loader and command line."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.config import ModelConfig
from common.identity import SigningKey
from fl_server.hub import PublishedVersion, Registry
from models.manifest import Cohort, ModelFacts, PrivacyStatement
from models.preprocess import Preprocessing

KEY = SigningKey.from_seed(bytes(range(32)))
OTHER_KEY = SigningKey.from_seed(bytes(32))

PRIVATE = PrivacyStatement.guaranteed(
    unit="record", epsilon=7.9, delta=1e-5, accountant="rdp", clipping_norm=1.0, noise_source="the operating system"
)


def weights_of_round(number: int) -> dict[str, NDArray[np.float32]]:
    generator = np.random.default_rng(number)
    return {
        "conv.weight": generator.standard_normal((2, 1, 3, 3), dtype=np.float32),
        "scale": np.array(number, dtype=np.float32),
    }


def onnx_of_round(number: int) -> bytes:
    return f"the graph of round {number}".encode() * 3


def facts_of_round(number: int, **changes: Any) -> ModelFacts:
    values: dict[str, Any] = {
        "model": ModelConfig(),
        "preprocessing": Preprocessing(),
        "run": "demo",
        "round": number,
        "created": f"2026-01-31T12:{number % 60:02d}:00Z",
        "cohort": Cohort(asked=20, accepted=18),
        "privacy": PRIVATE,
        "metrics": {"accuracy": 0.5},
        "init": "random",
    }
    return ModelFacts(**values | changes)


def publish(folder: Path, number: int, *, key: SigningKey = KEY, keep: int | None = None) -> PublishedVersion:
    registry = Registry(folder, key, keep=keep)
    return registry.publish(weights_of_round(number), onnx_of_round(number), facts_of_round(number))
