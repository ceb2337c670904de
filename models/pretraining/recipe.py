"""How the base model is trained, in one file. `fl-sim pretrain` reads it; a run keeps it, and goes on with no other."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from common.config import Settings, read_config
from common.errors import ConfigError
from models.mobilenet import VARIANTS

DEFAULT_RECIPE = Path(__file__).with_name("recipe.toml")


class Recipe(Settings):
    """One way to train a base model. Amounts of training count faces seen, so that they hold for every batch size.

    Attributes:
        variant: of `models.mobilenet`.
        stem_stride: 1 or 2.
        dropout: before the last layer, in training.
        images: faces seen in all, each pass and each warp counted; a run may be given another number.
        batch_size: faces per step.
        optimiser: `adamw` (Loshchilov and Hutter 2019) or `sgd` with Nesterov's momentum.
        learning_rate: between warm-up and decay.
        momentum: of SGD; AdamW keeps its usual betas.
        weight_decay: of weights with two or more dimensions; norms and biases have none.
        warm_up: faces over which the rate rises from 0.
        decay: last part of the run, in which the rate falls to 0 as 1 - sqrt (Hägele et al. 2024, arXiv:2405.18392).
        ema: decay of the moving average of the weights, per step; it is what is evaluated and shipped.
        ferplus_weight, fer2013_weight: of the two heads' cross-entropies in the loss.
        label_smoothing: of the FER2013 labels, which came from a search engine; FER+ votes are soft already.
        ferplus_rows: training rows with a FER+ target: `majority` as in the M8 protocol, or `votes`: all whose remaining
            votes are for an emotion more often than for unknown or no face. Evaluation is always on M8.
        augment: random flips, shifts, rotations and scales.
        seed: of weights, order, warps and dropout.
        validate_every: faces between two looks at PublicTest.
        save_every: faces between two checkpoints.
    """

    variant: str = "mobilenet_v3_small"
    stem_stride: Literal[1, 2] = 1
    dropout: float = Field(default=0.2, ge=0, lt=1)
    images: int = Field(default=2_700_000, ge=1)
    batch_size: int = Field(default=64, ge=1)
    optimiser: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = Field(default=0.002, gt=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=0.05, ge=0)
    warm_up: int = Field(default=6_000, ge=0)
    decay: float = Field(default=0.2, gt=0, le=1)
    ema: float = Field(default=0.998, ge=0, lt=1)
    ferplus_weight: float = Field(default=1.0, ge=0)
    fer2013_weight: float = Field(default=1.0, ge=0)
    label_smoothing: float = Field(default=0.1, ge=0, lt=1)
    ferplus_rows: Literal["majority", "votes"] = "votes"
    augment: bool = True
    seed: int = Field(default=0, ge=0, lt=2**31)
    validate_every: int = Field(default=30_000, ge=1)
    save_every: int = Field(default=10_000, ge=1)

    def identity(self) -> dict[str, Any]:
        """What two runs must share so that one can go on with the other's checkpoint: all but length and bookkeeping."""
        return self.model_dump(mode="json", exclude={"images", "validate_every", "save_every"})


def read_recipe(path: Path = DEFAULT_RECIPE, **changes: Any) -> Recipe:
    """The recipe in a TOML file, with `changes` that are not None in place of its values.

    Raises:
        ConfigError: the file is missing or no TOML, or a setting is unknown or out of range.
    """
    return make_recipe(read_config(path) | {name: value for name, value in changes.items() if value is not None}, str(path))


def make_recipe(values: dict[str, Any], where: str) -> Recipe:
    """A recipe of plain values; `where` they came from is said in errors.

    Raises:
        ConfigError: a setting is unknown or out of range.
    """
    try:
        recipe = Recipe.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        what = "it is not a setting" if first["type"] == "extra_forbidden" else first["msg"].removeprefix("Value error, ")
        raise ConfigError(f"{name} in the recipe {where} is wrong: {what}.") from error
    if recipe.variant not in VARIANTS:
        raise ConfigError(f"There is no variant {recipe.variant!r}; choose one of {', '.join(VARIANTS)}.")
    return recipe
