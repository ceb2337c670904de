"""A last layer of the device's own, in a file that never leaves it. `fl_client.device` and `fl_client.personal` keep theirs here.

It lies with the faces, in DIR/.emofl/personal, readable by its owner alone; who forgets the faces forgets it, too.
"""

import json
import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from common.arrays import Arrays
from common.errors import IntegrityError
from common.files import read_plain, write_atomic
from models.faces.folder import OWN_FOLDER
from models.subset import shared_names

log = logging.getLogger("emofl.client")

PERSONAL = "personal"
FEDERATED, FITTED = "federated.safetensors", "fitted.safetensors"
"""The head that federated rounds train, and the one that `fl-client personalise` fits."""
LIMIT = 64 * 2**20


@dataclass(frozen=True)
class OwnHead:
    """A head.

    Attributes:
        arrays: its parameters, by their names in the whole model.
        facts: what it belongs to, in words by name.
    """

    arrays: Arrays
    facts: Mapping[str, str] = field(default_factory=dict)

    def fits(self, weights: Arrays) -> bool:
        """Whether it can take the place of the same parameters in `weights`."""
        return all(name in weights and weights[name].shape == value.shape for name, value in self.arrays.items())


@dataclass(frozen=True)
class RunHead:
    """The head that a device keeps throughout one run, where the run asks for that; another run begins with the server's.

    It is trained in the same noisy steps as what is uploaded: what later rounds show of it is covered by the same debit.

    Attributes:
        path: of the file; None for a device that has no place for one, and begins every round with the server's head.
        run: what tells this run from others, servers included.
        local_layers: of the run's settings: `none` or `head`.
    """

    path: Path | None
    run: str
    local_layers: str

    def adopt(self, weights: Arrays) -> Arrays:
        """The global weights, with the device's own head in place of the server's if it has one."""
        if self.path is None or self.local_layers == "none":
            return weights
        try:
            head = read_head(self.path)
        except IntegrityError as error:
            log.warning("%s This round begins with the server's head.", error)
            return weights
        if head is None or head.facts.get("run") != self.run or not head.fits(weights):
            return weights
        return weights | head.arrays

    def keep(self, weights: Arrays, update: Arrays) -> Arrays:
        """What of an update leaves the device; the rest, on top of `weights`, is stored."""
        shared = set(shared_names(update, self.local_layers))
        head = {name: weights[name] + value for name, value in update.items() if name not in shared}
        if head and self.path is not None:
            write_head(self.path, OwnHead(head, {"run": self.run}))
        return {name: value for name, value in update.items() if name in shared}


def personal_folder(data: Path) -> Path:
    """Where the heads for the faces in `data` lie."""
    return data / OWN_FOLDER / PERSONAL


def read_head(path: Path) -> OwnHead | None:
    """The head in a file; None where there is none.

    Raises:
        IntegrityError: the file is no head.
    """
    if not path.exists():
        return None
    content = read_plain(path, LIMIT)
    try:
        arrays = load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        facts = {str(name): str(value) for name, value in header.get("__metadata__", {}).items()}
        if not arrays or any(value.dtype != np.float32 or not np.isfinite(value).all() for value in arrays.values()):
            raise ValueError
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise IntegrityError(f"{path} is no head of a model: delete it, and begin anew.") from error
    return OwnHead(arrays, facts)


def write_head(path: Path, head: OwnHead) -> None:
    """Write it whole or not at all, for its owner alone."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_atomic(path, save(dict(head.arrays), metadata=dict(head.facts)), mode=0o600)


def forget_heads(data: Path) -> bool:
    """Delete all heads for the faces in `data`, and the folder of our own if nothing else is in it; whether there were any."""
    folder = personal_folder(data)
    if folder.is_symlink():
        folder.unlink()
        return True
    there = folder.exists()
    shutil.rmtree(folder, ignore_errors=True)
    own = folder.parent
    if there and own.is_dir() and not own.is_symlink() and not any(own.iterdir()):
        own.rmdir()
    return there
