"""A last layer of the device's own, in a file that never leaves it. `fl_client.device` and `personalise_commands` keep it.

It lies in `personal` in DIR/.emofl, readable by its owner alone; one that rounds train in the device's home, where that is
another folder. Who forgets the faces forgets it, too.
"""

import json
import logging
import tempfile
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from common.arrays import Arrays
from common.errors import IntegrityError
from common.files import no_room, read_plain, write_atomic
from fl_client.own_home import remembered_homes
from fl_client.wipes import Since, wiping
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
        since: from before the faces were read; None for a device whose heads are never wiped, as a simulation's.
    """

    path: Path | None
    run: str
    local_layers: str
    since: Since | None = None

    def objection(self, weights: Arrays) -> str | None:
        """Why a head of this model could not be kept, found out by writing as much; None if it can, or none is to be kept."""
        if self.path is None or self.local_layers == "none":
            return None
        shared = set(shared_names(weights, self.local_layers))
        size = sum(value.nbytes for name, value in weights.items() if name not in shared)
        folder = self.path.parent
        try:
            _make(folder)
            with tempfile.NamedTemporaryFile(dir=folder, prefix=f".{self.path.name}.") as trial:
                trial.write(bytes(size))
        except OSError as error:
            cure = "make room there" if no_room(error) else "make it writable, or give a --home that is"
            return f"This run leaves a head on the device, and {folder} cannot be written ({_why(error)}): {cure}."
        return None

    def adopt(self, weights: Arrays) -> Arrays:
        """The global weights, with the device's own head in place of the server's if it has one that can be read."""
        if self.path is None or self.local_layers == "none":
            return weights
        try:
            head = read_head(self.path)
        except IntegrityError as error:
            log.warning("%s This round begins with the server's head.", error)
            return weights
        except OSError as error:
            log.warning("%s cannot be read (%s). This round begins with the server's head.", self.path, _why(error))
            return weights
        if head is None or head.facts.get("run") != self.run or not head.fits(weights):
            return weights
        return weights | head.arrays

    def keep(self, weights: Arrays, update: Arrays) -> Arrays:
        """What of an update leaves the device; the rest, on top of `weights`, is stored.

        What is not finite, cannot be written, or is of faces that were wiped meanwhile, is not stored: the debit stands, and the
        file stays as it was.
        """
        shared = set(shared_names(update, self.local_layers))
        with np.errstate(all="ignore"):
            head = {name: weights[name] + value for name, value in update.items() if name not in shared}
        if head and self.path is not None:
            self._store(self.path, head)
        return {name: value for name, value in update.items() if name in shared}

    def _store(self, path: Path, head: Arrays) -> None:
        if not all(np.isfinite(value).all() for value in head.values()):
            log.warning("The device's own head is not finite after this round, so it is not kept.")
            return
        try:
            if not keep_head(path, OwnHead(head, {"run": self.run}), self.since):
                log.warning("The device's own heads were deleted during this round, so what it trained of one is not kept.")
        except IntegrityError as error:
            log.warning("%s The device's own head of this round is not kept.", error)
        except OSError as error:
            log.warning("%s cannot be written (%s): the device's own head of this round is not kept.", path, _why(error))


def personal_folder(data: Path) -> Path:
    """Where the heads for the faces in `data` lie, unless the device has another home."""
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
    _make(path.parent)
    write_atomic(path, save(dict(head.arrays), metadata=dict(head.facts)), mode=0o600)


def keep_head(path: Path, head: OwnHead, since: Since | None) -> bool:
    """As `write_head`, but not if the device's heads were wiped `since`; whether it was written.

    Raises:
        IntegrityError: whether they were cannot be told.
    """
    with since.no_wipe() if since is not None else nullcontext(True) as unwiped:
        if unwiped:
            write_head(path, head)
    return unwiped


def forget_heads(data: Path) -> bool:
    """Delete all heads for the faces in `data`, in the device's home too where that is another folder; whether there were any.

    One that is being fitted now is not kept. No link is followed. The folder of our own beside the faces goes, too, if nothing
    else is in it.
    """
    with wiping(data):
        return _forget_heads(data)


def _forget_heads(data: Path) -> bool:
    own = data / OWN_FOLDER
    if own.is_symlink():
        log.warning("%s is a link, which is not followed: delete %s where it leads yourself.", own, PERSONAL)
    found = False if own.is_symlink() else _forget(own / PERSONAL)
    for home in _homes(data):
        if home != own.absolute() and not home.is_symlink():
            found |= not (home / PERSONAL).is_symlink() and _forget(home / PERSONAL)
    if own.is_dir() and not own.is_symlink() and not any(own.iterdir()):
        own.rmdir()
    return found


def _forget(folder: Path) -> bool:
    """Delete the heads in a folder, half-written ones too, and nothing else that is in it."""
    if folder.is_symlink():
        folder.unlink()
        return True
    if not folder.is_dir():
        return False
    begun = tuple(f".{name}." for name in (FEDERATED, FITTED))
    ours = [path for path in folder.iterdir() if path.name in (FEDERATED, FITTED) or path.name.startswith(begun)]
    for path in ours:
        path.unlink()
    if not any(folder.iterdir()):
        folder.rmdir()
    return bool(ours)


def _homes(data: Path) -> tuple[Path, ...]:
    try:
        return remembered_homes(data)
    except (IntegrityError, OSError) as error:
        log.warning("Heads in another home of this device, if there are any, stay: %s", error)
        return ()


def _make(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)


def _why(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
