"""The training loop of the base model: a warm-up, a constant rate, a decay; stoppable, and resumable to the bit.

`fl-sim pretrain` calls `pretrain`, which leaves a folder with checkpoints, history.jsonl and at the end result.json.
"""

import json
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from common.canonical import sha256
from common.errors import RunError
from common.files import write_atomic
from common.processes import only_process
from models.pretraining.checkpoint import CHECKPOINT, STABLE, Checkpoint, keep, newest
from models.pretraining.data import Splits
from models.pretraining.recipe import Recipe
from models.pretraining.result import RESULT, known_result, split_facts
from models.pretraining.schedule import Schedule, plan
from models.pretraining.scores import score, score_apart
from models.pretraining.training import Training

HISTORY = "history.jsonl"


@dataclass(frozen=True)
class Watch:
    """What an onlooker is told.

    Attributes:
        note: a sentence, such as what is resumed.
        on_step: faces seen, faces in all, smoothed loss.
        on_validation: the record of a look at PublicTest.
    """

    note: Callable[[str], None] = lambda text: None
    on_step: Callable[[int, int, float], None] = lambda seen, total, loss: None
    on_validation: Callable[[dict[str, Any]], None] = lambda record: None


def pretrain(
    recipe: Recipe,
    splits: Splits,
    folder: Path,
    images: int | None = None,
    *,
    stop: threading.Event | None = None,
    watch: Watch | None = None,
    device: str = "cpu",
) -> dict[str, Any] | None:
    """Train, or go on with what `folder` holds, until `images` faces were seen; then score PrivateTest, once.

    Args:
        images: None: what the folder's run was given, or else the recipe's. Another number than before moves the fall of the
            rate: it begins at once if the new end is near. A run whose rate had begun to fall goes back to where it began.
        stop: when it is set, the training ends after the step in hand, keeps its state, and returns None.

    Returns:
        The record that is also in result.json, or None if it was stopped.

    Raises:
        RunError: the folder holds a training by another recipe, or on other faces, or one that has seen `images` faces
            already, or another process is training in it, or the loss is no longer finite.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with only_process(folder / "lock", f"Process {{process}} is training in {folder}; stop it first, or name another folder."):
        return _pretrain(recipe, splits, folder, images, stop or threading.Event(), watch or Watch(), device)


def _pretrain(
    recipe: Recipe, splits: Splits, folder: Path, images: int | None, stop: threading.Event, watch: Watch, device: str
) -> dict[str, Any] | None:
    state, schedule = _resume(recipe, splits, folder, images, watch)
    training = Training(recipe, device)
    if state.tensors:
        training.restore(state.tensors)
    loss = math.nan
    while state.step < schedule.steps:
        began = time.monotonic()
        if state.step == schedule.decay_from:
            state.tensors = training.state()
            state.save(folder / STABLE)
        current = training.step(state.step, schedule.rate(state.step), splits.training)
        state.step += 1
        state.seconds += time.monotonic() - began
        if not math.isfinite(current):
            seen = state.step * recipe.batch_size
            raise RunError(f"The loss is no longer finite after {seen:,} faces; lower learning_rate in the recipe.")
        loss = current if math.isnan(loss) else 0.98 * loss + 0.02 * current
        if state.step > schedule.decay_from:
            state.decay_from = schedule.decay_from
        ends = state.step == schedule.steps
        watch.on_step(state.step * recipe.batch_size, schedule.steps * recipe.batch_size, loss)
        if ends or _crosses(state.step, recipe.batch_size, recipe.validate_every):
            record = _validate(training, splits, state, schedule, loss)
            state.history.append(record)
            watch.on_validation(record)
        if ends or stop.is_set() or _crosses(state.step, recipe.batch_size, recipe.save_every):
            state.tensors = training.state()
            keep(folder, state)
            write_atomic(folder / HISTORY, "".join(json.dumps(record) + "\n" for record in state.history).encode())
        if stop.is_set() and not ends:
            return None
    return _finish(training, splits, folder, state)


def _resume(recipe: Recipe, splits: Splits, folder: Path, images: int | None, watch: Watch) -> tuple[Checkpoint, Schedule]:
    """Where to go on, and the schedule from there."""
    state, damage = newest(folder)
    if damage:
        watch.note(damage)
    if state is None:
        images = images or recipe.images
        return Checkpoint(recipe.identity(), 0, images, None, {}, data=splits.digest()), plan(recipe, images)
    mine = recipe.identity()
    if changed := sorted(name for name in mine if state.recipe.get(name) != mine[name]):
        name = changed[0]
        raise RunError(
            f"{folder} holds a training by another recipe: {name} was {state.recipe.get(name)!r} and is now {mine[name]!r}. "
            "Go on with the old recipe, or start in another folder."
        )
    _hold_to_faces(state, splits, folder, watch)
    images = images or state.images
    if images != state.images and state.decay_from is not None:
        state = replace(Checkpoint.load(folder / STABLE), data=state.data)
        watch.note(f"Back to where the learning rate began to fall, at {state.step * recipe.batch_size:,} faces.")
    schedule = plan(recipe, images, state.step)
    if state.decay_from is not None:
        schedule = replace(schedule, decay_from=state.decay_from)
    if images != state.images and schedule.steps <= state.step:
        seen = state.step * recipe.batch_size
        raise RunError(f"The training in {folder} has seen {seen:,} faces already; give more than that as --images.")
    state.images = images
    watch.note(f"Going on after {state.step * recipe.batch_size:,} faces of {images:,}.")
    return state, schedule


def _hold_to_faces(state: Checkpoint, splits: Splits, folder: Path, watch: Watch) -> None:
    """Refuse other faces than the folder's; a folder of the first version, which kept no digest, is held to these from now on."""
    digest = splits.digest()
    if state.data is None:
        known = known_result(folder)
        same = known is None or known["splits"] == split_facts(splits)
    else:
        same = state.data == digest
    if not same:
        raise RunError(
            f"{folder} holds a training on other faces than these; give the --data that it began with, "
            "or start in another folder."
        )
    if state.data is None:
        state.data = digest
        state.save(folder / CHECKPOINT)
        watch.note(f"{folder} did not say which faces it was trained on; from now on it goes on with these alone.")


def _validate(training: Training, splits: Splits, state: Checkpoint, schedule: Schedule, loss: float) -> dict[str, Any]:
    found = score(training.average, splits.validation)
    return {
        "images": state.step * training.recipe.batch_size,
        "train_loss": loss,
        "learning_rate": schedule.rate(state.step - 1),
        "seconds": state.seconds,
        "validation": {
            name: {key: value for key, value in head.record().items() if key not in ("confusion", "classes")}
            for name, head in found.items()
        },
    }


def _finish(training: Training, splits: Splits, folder: Path, state: Checkpoint) -> dict[str, Any]:
    """Score both public splits, once for these weights, and keep the figures."""
    seen, weights = state.step * training.recipe.batch_size, sha256(state.averages())
    known = known_result(folder)
    if known and "unseen" in known and (known["images"], known.get("weights"), known.get("data")) == (seen, weights, state.data):
        return known
    validation, unseen_validation = score_apart(training.average, splits.validation, splits.training)
    test, unseen_test = score_apart(training.average, splits.test, splits.training)
    result = {
        "recipe": training.recipe.model_dump(mode="json") | {"images": state.images},
        "images": seen,
        "decay_images": (state.step - (state.decay_from or 0)) * training.recipe.batch_size,
        "seconds": state.seconds,
        "device": str(training.device),
        "parameters": sum(parameter.numel() for parameter in training.network.parameters()),
        "weights": weights,
        "data": state.data,
        "splits": split_facts(splits),
        "validation": validation,
        "test": test,
        "unseen": {"validation": unseen_validation, "test": unseen_test},
    }
    write_atomic(folder / RESULT, (json.dumps(result, indent=1) + "\n").encode())
    return result


def _crosses(step: int, batch: int, interval: int) -> bool:
    """Whether step number `step`, from 1, is the first to reach a multiple of `interval` faces."""
    return step * batch // interval > (step - 1) * batch // interval
