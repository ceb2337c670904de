"""From a finished training to the files that ship: weights, model card, signed manifest. `fl-sim pretrain --ship` calls it."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from common.canonical import encode, sha256
from common.emotions import EMOTIONS_7, EMOTIONS_8
from common.errors import RunError
from common.files import write_atomic
from common.identity import SigningKey
from models.manifest import FileEntry, PrivacyStatement
from models.preprocess import Preprocessing
from models.pretrained import open_base
from models.pretrained.manifest import BASE_LIMIT, CARD, CONTEXT, MANIFEST, PUBLISHER, SIGNATURE, WEIGHTS, BaseManifest
from models.pretraining.card import model_card
from models.pretraining.checkpoint import CHECKPOINT, Checkpoint
from models.pretraining.data import FER2013, FERPLUS
from models.pretraining.heads import build_two_heads, last_layer
from models.pretraining.recipe import make_recipe
from models.pretraining.result import RESULT, is_of, read_result

DATA = "FER2013 Training rows (Goodfellow et al. 2013) with FER+ votes (Barsoum et al. 2016)"


def ship(run: Path, folder: Path, key: SigningKey) -> BaseManifest:
    """Write the base model of the finished training in `run` to `folder`, and read it back as a user would.

    Raises:
        RunError: the training is not finished, its figures are of other weights, or the weights are too large to ship.
    """
    result = read_result(run)
    if "unseen" not in result:
        raise RunError(f"{run / RESULT} is of an earlier version; run the training's command again, which scores anew.")
    recipe = make_recipe(result["recipe"], str(run / RESULT))
    checkpoint = Checkpoint.load(run / CHECKPOINT)
    same = checkpoint.step * recipe.batch_size == result["images"] and checkpoint.recipe == recipe.identity()
    if not same or not is_of(result, checkpoint):
        raise RunError(f"{run / RESULT} is not of the newest checkpoint; run the training's command to its end, then ship it.")
    weights, card = checkpoint.averages(), model_card(result, checkpoint.history).encode()
    if len(weights) > BASE_LIMIT:
        raise RunError(
            f"{recipe.variant} has {len(weights):,} bytes; a base model may have {BASE_LIMIT:,}. Choose a smaller one."
        )
    manifest = BaseManifest(
        schema_version=1,
        variant=recipe.variant,
        stem_stride=recipe.stem_stride,
        last_layer=last_layer(build_two_heads(recipe)),
        heads={FERPLUS: EMOTIONS_8, FER2013: EMOTIONS_7},
        preprocessing=Preprocessing(),
        created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        data=DATA,
        images=result["images"],
        privacy=PrivacyStatement.absent(f"central training on public data: {DATA}"),
        metrics=metrics_of(result),
        recipe=sha256(encode(result["recipe"])),
        files={
            name: FileEntry(sha256=sha256(content), bytes=len(content)) for name, content in ((WEIGHTS, weights), (CARD, card))
        },
    )
    content = manifest.content()
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / WEIGHTS, weights)
    write_atomic(folder / CARD, card)
    write_atomic(folder / PUBLISHER, key.public.pem())
    write_atomic(folder / SIGNATURE, key.sign(CONTEXT, content))
    write_atomic(folder / MANIFEST, content)
    return open_base(folder).manifest


def metrics_of(result: dict[str, Any]) -> dict[str, float]:
    """The manifest's numbers, such as `test/ferplus/accuracy`; below `unseen/`, without copies of training faces."""
    named = {split: result[split] for split in ("validation", "test")}
    named |= {f"unseen/{split}": found for split, found in result["unseen"].items()}
    return {
        f"{split}/{head}/{name}": float(found[head][name])
        for split, found in named.items()
        for head in (FERPLUS, FER2013)
        if head in found
        for name in ("accuracy", "balanced_accuracy", "calibration_error", "examples")
    }
