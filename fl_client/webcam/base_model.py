"""The base model that ships with the project, for the camera loop: used when no registry and no model is named.

Its weights are verified each time; the ONNX file is made from them once, which takes torch and some seconds, and kept in the
user's cache folder.
"""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from common.canonical import sha256
from common.config import ModelConfig
from common.emotions import EMOTIONS_8
from common.errors import IntegrityError
from common.files import read_plain, write_atomic
from fl_client.webcam.badge import VERIFIED, Badge, Tone
from fl_client.webcam.model import LoopModel
from models.class_counts import BASE
from models.manifest import FILE_LIMIT
from models.pretrained import FOLDER, Base, open_base

PROMISE = "base model: public pictures, not private training"
MAKERS = ("models.export", "models.heatmap", "models.mobilenet", "models.onnx_forms")
"""What shapes the ONNX file beside the weights: when their code changes, it is made anew."""


def default_cache_folder() -> Path:
    """`$XDG_CACHE_HOME/emofl`, or `~/.cache/emofl`."""
    home = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (home if home.is_absolute() else Path.home() / ".cache") / "emofl"


@dataclass
class BaseSource:
    """A `ModelSource` of the shipped base model, which never has a newer one.

    Attributes:
        say: receives a sentence when the first use takes its time.
        folder: where the shipped files lie.
        cache: where the ONNX file is kept.
    """

    say: Callable[[str], None] = lambda sentence: None
    folder: Path = FOLDER
    cache: Path = field(default_factory=default_cache_folder)

    def newest(self) -> LoopModel:
        """The base model with FER+'s eight emotions.

        Raises:
            ModelError: there is none.
            IntegrityError: a file of it was altered.
        """
        base = open_base(self.folder)
        manifest = base.manifest
        config = manifest.config(EMOTIONS_8)
        return LoopModel(
            classes=config.classes,
            preprocessing=manifest.preprocessing,
            onnx=self._onnx(base, config),
            version=f"base model {manifest.created[:10]}",
            privacy=PROMISE,
            private=False,
            promise=" ".join((manifest.privacy.statement, *manifest.privacy.non_private)) + ".",
            signer=base.publisher.fingerprint,
            badge=Badge((PROMISE,), Tone.PUBLIC, signature=VERIFIED),
            counts=np.array([BASE[name] for name in config.classes], dtype=np.float64),
        )

    def newer(self) -> LoopModel | None:
        return None

    def _onnx(self, base: Base, config: ModelConfig) -> bytes:
        key = _key(base, config)
        found = _kept(self.cache, key)
        if found is None:
            self.say("Preparing the base model; this takes some seconds, the first time only.")
            found = _exported(base, config)
            _keep(self.cache, key, found)
        return found


def _key(base: Base, config: ModelConfig) -> str:
    """What the ONNX file follows from: signed manifest, configuration, and the code that makes it."""
    code = []
    for name in MAKERS:
        spec = find_spec(name)
        code.append(Path(spec.origin).read_bytes() if spec is not None and spec.origin else b"")
    parts = (base.manifest.content(), config.model_dump_json().encode(), *code)
    return sha256(b"".join(sha256(part).encode() for part in parts))[:16]


def _exported(base: Base, config: ModelConfig) -> bytes:
    import torch

    from models.export import export_onnx
    from models.mobilenet import build_model

    network = build_model(config)
    network.load_state_dict({name: torch.from_numpy(array) for name, array in base.weights(config).items()})
    return export_onnx(network, base.manifest.preprocessing.size)


def _kept(cache: Path, key: str) -> bytes | None:
    """The file of that key whose content is what its name says; a damaged one counts as none."""
    for path in sorted(cache.glob(f"base-{key}-*.onnx")):
        digest = re.fullmatch(rf"base-{key}-([0-9a-f]{{64}})\.onnx", path.name)
        try:
            content = read_plain(path, FILE_LIMIT)
        except IntegrityError:
            continue
        if digest is not None and sha256(content) == digest[1]:
            return content
    return None


def _keep(cache: Path, key: str, content: bytes) -> None:
    """For the next time, in place of what was kept; a folder that cannot be written is no harm."""
    try:
        cache.mkdir(parents=True, exist_ok=True, mode=0o700)
        old = list(cache.glob("base-*.onnx"))
        path = cache / f"base-{key}-{sha256(content)}.onnx"
        write_atomic(path, content, mode=0o600)
        for other in old:
            if other != path:
                other.unlink(missing_ok=True)
    except OSError:
        return
