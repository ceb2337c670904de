"""What the frozen layers make of faces, computed once per face while those layers stay as they are.

Where only the head or the last block trains, `models.evaluate` takes its inputs from here, and so does `fl_client.train` if faces
are not augmented.
"""

import hashlib
import threading
from collections import OrderedDict
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from common.privacy.dpsgd.rows import even_rows, filled
from models.faces.faceset import FaceSet
from models.preprocess import Preprocessing

MOST_BYTES = 256 * 2**20
"""Of the features that one cache keeps beside the newest face set's; the longest unused leave first."""
CHUNK = 64


def split_frozen(model: nn.Module) -> tuple[nn.Module, nn.Module] | None:
    """A MobileNet's frozen front and trained rest, which share its parameters; None where its first layers train, or none do.

    Dropout right before the first trained layer belongs to the rest: what is kept must not be drawn.
    """
    layers = [
        *model.get_submodule("features").children(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(1),
        *model.get_submodule("classifier").children(),
    ]
    trained = [any(p.requires_grad for p in layer.parameters()) for layer in layers]
    first = trained.index(True) if any(trained) else 0
    while first and isinstance(layers[first - 1], nn.Dropout):
        first -= 1
    return (nn.Sequential(*layers[:first]), nn.Sequential(*layers[first:])) if first else None


@dataclass
class Kept:
    """The features of one face set, filled as they are asked for."""

    values: Tensor | None = None
    known: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, dtype=np.bool_))
    guard: threading.Lock = field(default_factory=threading.Lock)

    def rows(self, rows: NDArray[np.int64], front: nn.Module, faces: FaceSet, preprocessing: Preprocessing) -> Tensor:
        """The features of the faces at `rows`."""
        with self.guard:
            if len(self.known) != len(faces):
                self.known = np.zeros(len(faces), dtype=np.bool_)
            missing = np.unique(rows[~self.known[rows]])
            if self.values is None and not len(missing):
                missing = np.zeros(1, dtype=np.int64)
            if surplus := even_rows(len(missing)) - len(missing):  # others fill up that will be asked for, too
                others = np.setdiff1d(np.flatnonzero(~self.known), missing)
                missing = np.concatenate([missing, others[:surplus]])
            for start in range(0, len(missing), CHUNK):
                part = missing[start : start + CHUNK]
                inputs = torch.from_numpy(preprocessing.normalise(faces.images[part]))
                with torch.inference_mode(False), torch.no_grad():  # an inference tensor could not be filled up later
                    whole = filled(inputs.contiguous(memory_format=torch.channels_last), even_rows(len(part)))
                    found = front(whole)[: len(part)]
                if self.values is None:
                    self.values = found.new_empty((len(faces), *found.shape[1:]))
                self.values[torch.from_numpy(part)] = found
                self.known[part] = True
            found = (self.values if self.values is not None else torch.empty(0))[torch.from_numpy(rows)]
            return found.contiguous(memory_format=torch.channels_last) if found.ndim == 4 else found

    @property
    def bytes(self) -> int:
        """Memory that the features take."""
        return 0 if self.values is None else self.values.numel() * self.values.element_size()


@dataclass(frozen=True)
class Divided:
    """A model whose first layers are frozen, over one face set.

    Attributes:
        rest: its trained layers, which share its parameters; they take what `rows` gives.
    """

    rest: nn.Module
    _front: nn.Module
    _kept: Kept
    _faces: FaceSet
    _preprocessing: Preprocessing

    def rows(self, rows: NDArray[np.int64]) -> Tensor:
        """The features of the faces at `rows`."""
        return self._kept.rows(rows, self._front, self._faces, self._preprocessing)


class FeatureCache:
    """Features by what they depend on: the frozen weights, the faces and how faces become inputs."""

    def __init__(self) -> None:
        self._kept: OrderedDict[bytes, Kept] = OrderedDict()
        self._guard = threading.Lock()

    def divide(self, model: nn.Module, faces: FaceSet, preprocessing: Preprocessing) -> Divided | None:
        """As `split_frozen`, with the features of these faces."""
        parts = split_frozen(model)
        if parts is None:
            return None
        front, rest = parts
        return Divided(rest, front, self.of(front, faces, preprocessing), faces, preprocessing)

    def of(self, front: nn.Module, faces: FaceSet, preprocessing: Preprocessing) -> Kept:
        """The features of these faces; empty at first."""
        digest = hashlib.sha256(preprocessing.model_dump_json().encode())
        digest.update(repr(front).encode())  # strides and kernels change features without changing weights
        digest.update(np.ascontiguousarray(faces.images).data)
        for name, p in front.named_parameters():
            digest.update(f"{name}{tuple(p.shape)}".encode())
            digest.update(p.detach().contiguous().numpy().data)
        key = digest.digest()
        with self._guard:
            kept = self._kept.setdefault(key, Kept())
            self._kept.move_to_end(key)
            while len(self._kept) > 1 and sum(entry.bytes for entry in self._kept.values()) > MOST_BYTES:
                self._kept.popitem(last=False)
            return kept
