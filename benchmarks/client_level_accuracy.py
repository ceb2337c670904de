"""Accuracy under distributed and central client-level noise at the same epsilon. `benchmarks.client_level --accuracy` calls it.

Devices with real faces (FER2013) train a linear head, from zeros, on the frozen features of the model that ships. Each clips
its update, and the mean is released by `common.privacy.client_level`, with a cohort of all devices that everybody knows: so
central and distributed rounds cost the same. No record-level noise is added: it would hide what is compared.
"""

import hashlib
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.table import Table
from torch import nn

from benchmarks.conclusion import conclude
from common.config import ModelConfig
from common.console import out
from common.emotions import EMOTIONS_7
from common.parameters import write_parameters
from common.privacy.client_level.accounting import calibrate_client_noise, calibrate_distributed
from common.privacy.client_level.central import CentralMechanism, CentralSum, clip_to_norm
from common.privacy.client_level.distributed import DistributedMechanism, noisy_survivors
from common.privacy.mechanisms import SecureRandom
from models.faces.faceset import FaceSet
from models.faces.fer2013 import load_fer2013
from models.mobilenet import build_model
from models.preprocess import Preprocessing
from models.pretrained import FOLDER, open_base
from models.pretrained.manifest import WEIGHTS
from simulation.partition import PartitionConfig, partition

DELTA, ROUNDS, CLIP = 1e-5, 10, 1.0
STEPS, RATE = 4, 4.0
"""Of a device's gradient descent on all of its faces."""
FACES, CLIENTS, SEEDS = 7_000, 100, 3
"""FACES of FER2013's Training rows, dealt to CLIENTS; all PrivateTest rows test."""
BATCH = 256
EPSILONS = (8.0, 2.0, 0.5)

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Faces:
    """Frozen features, each of unit length, with a 1 for the bias behind them, and labels 0 to 6.

    Attributes:
        train, test: (N, 1025) float32.
    """

    train: NDArray[np.float32]
    train_labels: NDArray[np.int64]
    test: NDArray[np.float32]
    test_labels: NDArray[np.int64]

    @property
    def length(self) -> int:
        """Values of a head."""
        return 7 * int(self.train.shape[1])


@dataclass(frozen=True)
class Cell:
    """One way to release the mean.

    Attributes:
        mode: `none` clips and adds no noise.
        epsilon: client level, of the whole run.
        bits: of a distributed sum.
        gone: whether as many devices drop out of every round as the noise is sized for.
    """

    mode: str
    epsilon: float = 0.0
    bits: int = 0
    gone: bool = False

    def __str__(self) -> str:
        noise = "no noise" if self.mode == "none" else f"epsilon {self.epsilon:g}, {self.mode}"
        return noise + (f", {self.bits} bits" if self.bits else "") + (", a third gone" if self.gone else "")


def features_of(fer2013: Path, most: int) -> Faces:
    """Computed once for a table of faces and a base model, and kept in the folder for temporary files."""
    key = hashlib.sha256(f"{fer2013.resolve()} {fer2013.stat().st_size} {most}".encode() + (FOLDER / WEIGHTS).read_bytes())
    kept = Path(tempfile.gettempdir()) / f"emofl-features-{key.hexdigest()[:16]}.npz"
    if not kept.exists():
        config = ModelConfig()
        model = build_model(config)
        write_parameters(model, open_base().weights(config))
        model.eval()
        train, test = (load_fer2013(fer2013, usage) for usage in ("Training", "PrivateTest"))
        train, test = (faces.take(np.arange(min(len(faces), most))) for faces in (train, test))
        features = _features(model, train), _features(model, test)
        np.savez(kept, train=features[0], train_labels=train.labels, test=features[1], test_labels=test.labels)
    with np.load(kept, allow_pickle=False) as found:
        return Faces(found["train"], found["train_labels"], found["test"], found["test_labels"])


def _features(model: nn.Module, faces: FaceSet) -> NDArray[np.float32]:
    """What the last layer gets."""
    last = model.get_submodule("classifier")[-1]  # type: ignore[index]
    seen: list[NDArray[np.float32]] = []
    hook = last.register_forward_pre_hook(lambda module, given: seen.append(given[0].numpy()))
    with torch.inference_mode():
        for start in range(0, len(faces), BATCH):
            inputs = torch.from_numpy(Preprocessing().normalise(faces.images[start : start + BATCH]))
            model(inputs.contiguous(memory_format=torch.channels_last))
    hook.remove()
    values = np.concatenate(seen)
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    return np.concatenate([values, np.full((len(values), 1), 0.1, np.float32)], axis=1)


def local_update(head: NDArray[np.float32], faces: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.float32]:
    """`STEPS` of full-batch gradient descent on the cross-entropy, as the flat change of the head."""
    now, wanted = head.copy(), np.eye(7, dtype=np.float32)[labels]
    for _ in range(STEPS):
        scores = faces @ now.T
        scores = np.exp(scores - scores.max(1, keepdims=True))
        now -= RATE * ((scores / scores.sum(1, keepdims=True) - wanted).T @ faces) / len(faces)
    return (now - head).ravel()


class Release:
    """The mean of a cell, round after round."""

    def __init__(self, cell: Cell, clients: int, length: int) -> None:
        self.cell, self.length, self.clients = cell, length, clients
        self.survivors = noisy_survivors(clients) if cell.gone else clients
        self.multiplier = 0.0
        self.mechanism: DistributedMechanism | None = None
        if cell.mode != "none":
            self.multiplier = calibrate_client_noise(cell.epsilon, DELTA, ROUNDS, 1.0, "known")
        if cell.mode == "distributed":
            asked = DistributedMechanism(clients, noisy_survivors(clients), length, CLIP, self.multiplier, cell.bits)
            self.mechanism = calibrate_distributed(asked, cell.epsilon, DELTA, ROUNDS)
            self.multiplier = self.mechanism.noise_multiplier

    def mean(self, updates: Iterator[NDArray[np.float32]], number: int) -> Values:
        """Of the survivors' clipped updates, as the server learns it."""
        if self.mechanism is not None:
            seed = hashlib.sha256(f"round {number}".encode()).digest()
            total, secure = np.zeros(self.mechanism.padded, np.uint32), SecureRandom()
            for update in updates:
                total += self.mechanism.encode(update, seed, secure)
            return self.mechanism.decode(total, seed) / self.survivors
        if self.cell.mode == "none":
            return np.asarray(np.sum([clip_to_norm(update, CLIP) for update in updates], axis=0) / self.survivors)
        collected = CentralSum(CentralMechanism(CLIP, self.multiplier, self.survivors), self.length)
        for update in updates:
            collected.add(update)
        return collected.release(SecureRandom())


def accuracy_after(cell: Cell, faces: Faces, clients: int, seed: int) -> float:
    """On the test faces, after `ROUNDS` rounds in which every device takes part, or all but those that drop out."""
    table = FaceSet(np.zeros((len(faces.train), 1, 1), np.uint8), np.eye(7, dtype=np.float32)[faces.train_labels], EMOTIONS_7)
    rows = partition(table, PartitionConfig(scheme="dirichlet", clients=clients, alpha=1.0, min_examples=4, seed=seed))
    release, random = Release(cell, clients, faces.length), np.random.default_rng(seed)
    head = np.zeros((7, faces.train.shape[1]), np.float32)
    for number in range(1, ROUNDS + 1):
        there = random.choice(clients, release.survivors, replace=False)
        updates = (local_update(head, faces.train[rows[n]], faces.train_labels[rows[n]]) for n in there)
        head += release.mean(updates, number).reshape(head.shape).astype(np.float32)
    return float(((faces.test @ head.T).argmax(1) == faces.test_labels).mean())


def cells(epsilons: tuple[float, ...]) -> Iterator[Cell]:
    """With everybody there; at the smallest epsilon also with as many gone as the noise is sized for."""
    yield Cell("none")
    for epsilon, gone in [*((epsilon, False) for epsilon in epsilons), (min(epsilons), True)]:
        yield Cell("central", epsilon, gone=gone)
        for bits in (16, 20):
            yield Cell("distributed", epsilon, bits, gone)


def measure_accuracy(fer2013: Path, quick: bool) -> None:
    """Train with each way to release the mean, print accuracies, then one line of JSON."""
    start = time.process_time()
    most, clients, seeds, epsilons = (600, 30, 1, EPSILONS[:1]) if quick else (FACES, CLIENTS, SEEDS, EPSILONS)
    faces = features_of(fer2013, most)
    title = f"Accuracy after {ROUNDS} rounds of {clients} devices, {seeds} seeds, delta {DELTA:g}"
    table = Table(title=title, title_justify="left")
    for heading in ("mean released with", "accuracy", "spread"):
        table.add_column(heading, justify="left" if "with" in heading else "right")
    results: dict[str, list[float]] = {}
    for cell in cells(epsilons):
        reached = [accuracy_after(cell, faces, clients, seed) for seed in range(seeds)]
        results[str(cell)] = [round(value, 4) for value in reached]
        table.add_row(str(cell), f"{np.mean(reached):.2%}", f"{np.std(reached, ddof=seeds > 1):.2%}")
    out.print(table)
    cpu = round(time.process_time() - start, 1)
    conclude("client_level_accuracy", {"results": results, "cpu_s": cpu})
