"""The base model that ships with the project, and the one way to its weights: signature, hashes, then a user's classes.

fl-server, fl-sim and fl-client start from it. `fl-sim pretrain --ship` writes these files, see docs/pretraining.md.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load

from common.arrays import Arrays
from common.canonical import sha256
from common.config import ModelConfig
from common.errors import IntegrityError, ModelError
from common.files import read_plain
from common.identity import PublicKey
from models.pretrained.manifest import (
    BASE_LIMIT,
    CARD,
    CONTEXT,
    MANIFEST,
    MANIFEST_LIMIT,
    PUBLISHER,
    SIGNATURE,
    WEIGHTS,
    BaseManifest,
    parse_base_manifest,
)

FOLDER = Path(__file__).parent
"""Where the shipped files lie."""


@dataclass(frozen=True)
class Base:
    """The verified base model, in memory.

    Attributes:
        manifest: what it is, how it was trained, and how good it is.
        publisher: the key that signed it.
    """

    manifest: BaseManifest
    publisher: PublicKey
    _arrays: Arrays = field(repr=False)

    def weights(self, config: ModelConfig) -> Arrays:
        """All parameters of `build_model(config)`, the last layer's rows chosen by the names of `config.classes`.

        FER2013's seven emotions, in any order, get the head that learned FER2013's labels; any others get their rows of
        the FER+ head.

        Raises:
            ModelError: the base is another network, or its last layer does not give these classes.
        """
        mine = (self.manifest.variant, self.manifest.stem_stride)
        if (config.name, config.stem_stride) != mine:
            raise ModelError(
                f"The base model is {mine[0]} with stem stride {mine[1]}; it cannot start {config.name} with stem stride "
                f"{config.stem_stride}. Use its variant and stride, or start from scratch."
            )
        from models.pretraining.heads import head_rows  # brings torch, which who only reads the manifest can do without

        rows, last = head_rows(config.classes), self.manifest.last_layer
        return {
            name: array[rows] if name in (f"{last}.weight", f"{last}.bias") else array.copy()
            for name, array in self._arrays.items()
        }


def load_base(config: ModelConfig, folder: Path = FOLDER) -> Arrays:
    """The base model's parameters for `build_model(config)`, by name: what training starts from.

    Raises:
        ModelError: there is no base model in `folder`, or it does not fit the variant, stem stride or classes.
        IntegrityError: a file was altered.
    """
    return open_base(folder).weights(config)


def open_base(folder: Path = FOLDER) -> Base:
    """The base model in `folder`, once signature and hashes hold.

    The key lies beside it, so this finds damage and tells who signed; who can exchange the whole installation can exchange
    the key. Compare its fingerprint with the one in docs/pretraining.md.

    Raises:
        ModelError: there is none.
        IntegrityError: a file is missing, altered, or not what `fl-sim pretrain --ship` writes.
    """
    if not (folder / MANIFEST).exists():
        raise ModelError(f"There is no base model in {folder}: make one with `fl-sim pretrain --ship`, or start from scratch.")
    try:
        content = read_plain(folder / MANIFEST, MANIFEST_LIMIT)
        publisher = PublicKey.read(folder / PUBLISHER)
        publisher.verify(CONTEXT, content, read_plain(folder / SIGNATURE, limit=64))
        manifest = parse_base_manifest(content)
        files = {}
        for name in (WEIGHTS, CARD):
            entry = manifest.files[name]
            files[name] = found = read_plain(folder / name, limit=BASE_LIMIT)
            if len(found) != entry.bytes or sha256(found) != entry.sha256:
                raise IntegrityError(f"{name} was altered: it is not the file that was signed.")
    except IntegrityError as error:
        raise IntegrityError(f"The base model in {folder} is refused: {error}") from error
    return Base(manifest, publisher, _parse(files[WEIGHTS]))


def _parse(content: bytes) -> Arrays:
    try:
        arrays = load(content)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise IntegrityError(f"{WEIGHTS} is not a safetensors file: {error}.") from error
    if odd := [name for name, array in arrays.items() if array.dtype != np.float32]:
        raise IntegrityError(f"{WEIGHTS} holds {odd[0]}, which is not float32.")
    return arrays
