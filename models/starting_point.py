"""What training begins from: fresh weights, the base model that ships with the project, one of your own, or a published model.

A server and a simulation ask here, so that both begin alike. A run remembers its start: a registry's latest version is another
one tomorrow, perhaps this very run's, and what a run promises rests on the one that it began with.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from common.arrays import Arrays, pack
from common.canonical import decode, encode, sha256
from common.config import RunConfig, make_config
from common.errors import ConfigError, EmoflError, ModelError, RunError
from common.files import write_atomic
from models.manifest import Manifest, parse_manifest
from models.pretrained import open_base
from models.pretrained.manifest import WEIGHTS as BASE_WEIGHTS
from models.published import PUBLISHER, VERSIONS, open_published

START = "start.json"
"""In a run's folder: what it began with."""


@dataclass(frozen=True)
class StartingPoint:
    """Where a run's weights come from.

    Attributes:
        weights: all parameters; None for fresh ones from the run's seed.
        manifest: of a published model, whose promises the run inherits.
        public_data: what else the weights have learnt from, that no device has to protect.
        name: for the manifests of what follows.
    """

    weights: Arrays | None = None
    manifest: Manifest | None = None
    public_data: str | None = None
    name: str = "random"


def base_fits(config: RunConfig) -> bool:
    """Whether the base model is there and can start this run."""
    try:
        open_base().weights(config.model)
    except ModelError:
        return False
    return True


def choose_start(values: dict[str, Any]) -> RunConfig:
    """The configuration of nested `values`, in which `init` is `scratch`, `base` or a path; the base where it fits if not given.

    Raises:
        ConfigError: as `make_config`.
    """
    said = values.get("init")
    if said == "scratch":
        values = values | {"init": None}
    elif isinstance(said, str) and said != "base":
        values = values | {"init": str(Path(said).expanduser().resolve())}
    config = make_config(values)
    return make_config(values | {"init": "base"}) if "init" not in values and base_fits(config) else config


def starting_point(config: RunConfig) -> StartingPoint:
    """What `config.init` names: a path is a published model's folder or one that `fl-sim pretrain --ship` wrote.

    Raises:
        IntegrityError: it does not hold.
        ModelError, ConfigError: it is not there, or of another architecture.
    """
    if config.init is None:
        return StartingPoint()
    if config.init == "base" or (config.init / BASE_WEIGHTS).exists():
        base = open_base() if config.init == "base" else open_base(config.init)
        data = "; ".join(base.manifest.privacy.non_private)
        return StartingPoint(base.weights(config.model), None, data, f"base model of {base.manifest.created}")
    published = open_published(config.init, trust=_own_key(config.init))
    theirs = published.manifest.model.model_copy(update={"trainable": config.model.trainable})
    if theirs != config.model:
        raise ConfigError(
            f"{config.init} is a {theirs.name} with stem stride {theirs.stem_stride} and {len(theirs.classes)} classes; the "
            f"run's is a {config.model.name} with stride {config.model.stem_stride} and {len(config.model.classes)} classes. "
            "Make them equal."
        )
    manifest = published.manifest
    return StartingPoint(published.weights(), manifest, None, f"{manifest.run} {manifest.version}")


def pin_start(start: StartingPoint, folder: Path) -> None:
    """Remember in a run's folder what it begins with: all but the weights, of which the hash."""
    known = {
        "name": start.name,
        "public_data": start.public_data,
        "manifest": start.manifest.content().decode() if start.manifest else None,
        "weights_sha256": _hash(start.weights),
    }
    write_atomic(folder / START, encode(known))


def pinned_start(config: RunConfig, folder: Path, begun: bool = False) -> StartingPoint:
    """What the run in `folder` began with, whatever has been published at `config.init` since; pinned now if it never was.

    Args:
        begun: whether the run has a checkpoint, and needs the weights no more: they are None then.

    Raises:
        ModelError: the weights are needed, and are not there any more.
        RunError: what is remembered is damaged; or nothing is, and a published model that it began with may have been another.
        IntegrityError, ConfigError: as `starting_point`, where nothing is remembered.
    """
    path = folder / START
    if not path.exists():
        start = starting_point(config)
        if begun and start.manifest is not None:
            raise RunError(
                f"The run in {folder} was begun by an earlier version, which did not note the model that it started from, and "
                f"{config.init} may hold another one by now: begin another run."
            )
        pin_start(start, folder)
        return start
    try:
        known = dict(decode(path.read_bytes()))
        manifest = parse_manifest(known["manifest"].encode()) if known["manifest"] else None
        start = StartingPoint(None, manifest, known["public_data"], str(known["name"]))
        wanted = known["weights_sha256"]
    except (OSError, EmoflError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise RunError(f"{path} is damaged; this run cannot go on.") from error
    if begun or wanted is None:
        return start
    for place in _places(config, manifest):
        try:
            weights = starting_point(place).weights
        except EmoflError:
            continue
        if _hash(weights) == wanted:
            return replace(start, weights=weights)
    raise ModelError(f"The run in {folder} starts from {start.name}, which is not at {config.init} any more: begin another run.")


def _places(config: RunConfig, manifest: Manifest | None) -> list[RunConfig]:
    """Where a run's start may still be: its version in the registry, or the very path."""
    found = [config]
    if manifest is not None and isinstance(config.init, Path):
        found.insert(0, config.model_copy(update={"init": config.init / VERSIONS / manifest.version}))
    return found


def _hash(weights: Arrays | None) -> str | None:
    return None if weights is None else sha256(pack(weights))


def _own_key(path: Path) -> Path | None:
    """The key that lies beside a model: on this machine the model is the user's own, and nothing is remembered of it."""
    registry = path if (path / PUBLISHER).exists() else path.parent.parent
    return registry / PUBLISHER if (registry / PUBLISHER).exists() else None
