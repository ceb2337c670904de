"""What training begins from: fresh weights, the base model that ships with the project, one of your own, or a published model.

A server and a simulation ask here, so that both begin alike.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.arrays import Arrays
from common.config import RunConfig, make_config
from common.errors import ConfigError, ModelError
from models.manifest import Manifest
from models.pretrained import open_base
from models.pretrained.manifest import WEIGHTS as BASE_WEIGHTS
from models.published import PUBLISHER, open_published


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


def _own_key(path: Path) -> Path | None:
    """The key that lies beside a model: on this machine the model is the user's own, and nothing is remembered of it."""
    registry = path if (path / PUBLISHER).exists() else path.parent.parent
    return registry / PUBLISHER if (registry / PUBLISHER).exists() else None
