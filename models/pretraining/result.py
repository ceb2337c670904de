"""The figures of a finished training, and of which weights and faces they are: result.json, between training and shipping."""

import json
from pathlib import Path
from typing import Any

from common.canonical import sha256
from common.errors import RunError
from models.pretraining.checkpoint import Checkpoint
from models.pretraining.data import Splits

RESULT = "result.json"
RESULT_KEYS = ("recipe", "images", "decay_images", "seconds", "device", "parameters", "splits", "validation", "test")
LATER_KEYS = ("weights", "data", "unseen")
"""SHA-256 of the averaged weights as they ship; `Splits.digest`; `models.pretraining.scores.score_apart`. Files of earlier
versions lack them, and are good for nothing but telling whether the faces were others."""


def read_result(run: Path) -> dict[str, Any]:
    """The figures of a finished training.

    Raises:
        RunError: it has none, or the file is damaged or of another version.
    """
    try:
        found: dict[str, Any] = json.loads((run / RESULT).read_text())
    except OSError as error:
        raise RunError(
            f"The training in {run} is not finished: it has no {RESULT}. Run the same command without --ship."
        ) from error
    except ValueError as error:
        raise RunError(f"{run / RESULT} is damaged; run the training's command again, which scores anew.") from error
    if not isinstance(found, dict):
        raise RunError(f"{run / RESULT} is damaged; run the training's command again, which scores anew.")
    if odd := set(RESULT_KEYS) ^ (set(found) - set(LATER_KEYS)):
        raise RunError(f"{run / RESULT} is of another version ({min(odd)}); run the training's command again, which scores anew.")
    return found


def known_result(run: Path) -> dict[str, Any] | None:
    """As `read_result`, but None where there is nothing that can be used."""
    try:
        return read_result(run)
    except RunError:
        return None


def is_of(result: dict[str, Any], checkpoint: Checkpoint) -> bool:
    """Whether the figures are those of the checkpoint's averaged weights."""
    return bool(result.get("weights") == sha256(checkpoint.averages()))


def split_facts(splits: Splits) -> dict[str, dict[str, Any]]:
    """How many faces each split has, and how many with a FER+ target, by class."""
    named = (("Training", splits.training), ("PublicTest", splits.validation), ("PrivateTest", splits.test))
    return {
        name: {"faces": len(split), "with_ferplus_target": int(split.voted.sum()), "ferplus_counts": split.ferplus_counts()}
        for name, split in named
    }
