import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load, save

from common.canonical import encode
from common.config import ModelConfig
from common.emotions import EMOTIONS_7, EMOTIONS_8
from common.errors import IntegrityError, ModelError, RunError
from common.identity import SigningKey
from common.parameters import write_parameters
from models.mobilenet import build_model
from models.pretrained import FOLDER, load_base, open_base
from models.pretrained.manifest import CARD, CONTEXT, MANIFEST, PUBLISHER, SIGNATURE, WEIGHTS
from models.pretraining.checkpoint import CHECKPOINT, Checkpoint
from models.pretraining.heads import build_two_heads
from models.pretraining.result import LATER_KEYS, RESULT
from models.pretraining.shipping import ship
from tests.models.pretraining.tiny import TINY, lengthen_break_and_shorten, make_first_version, train

KEY = SigningKey.from_seed(bytes(32))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    train(folder, images=32)
    return folder


@pytest.fixture
def base(run: Path, tmp_path: Path) -> Path:
    ship(run, tmp_path / "base", KEY)
    return tmp_path / "base"


def config(classes: tuple[str, ...] = EMOTIONS_7, name: str = TINY.variant, stem_stride: int = 2) -> ModelConfig:
    return ModelConfig.model_validate({"name": name, "stem_stride": stem_stride, "classes": classes})


def logits(classes: tuple[str, ...], base: Path) -> torch.Tensor:
    model = build_model(config(classes)).eval()
    write_parameters(model, load_base(config(classes), base))
    with torch.inference_mode():
        return model(torch.randn(4, 1, 48, 48, generator=torch.Generator().manual_seed(0)))


def test_every_choice_of_classes_gives_the_logits_that_training_averaged(run: Path, base: Path) -> None:
    network = build_two_heads(TINY).eval()
    tensors = Checkpoint.load(run / CHECKPOINT).tensors
    write_parameters(network, {name[4:]: value for name, value in tensors.items() if name.startswith("ema/")})
    with torch.inference_mode():
        both = network(torch.randn(4, 1, 48, 48, generator=torch.Generator().manual_seed(0)))
    assert torch.allclose(logits(EMOTIONS_8, base), both[:, :8], atol=1e-6)
    assert torch.allclose(logits(EMOTIONS_7, base), both[:, 8:], atol=1e-6)
    assert torch.allclose(logits(("fear", "neutral"), base), both[:, [6, 0]], atol=1e-6)


def test_changing_what_was_loaded_does_not_change_the_base(base: Path) -> None:
    opened = open_base(base)
    opened.weights(config())["features.0.0.weight"][:] = 0
    assert opened.weights(config())["features.0.0.weight"].any()


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [({"name": "mobilenet_v3_small"}, "it cannot start mobilenet_v3_small"), ({"stem_stride": 1}, "stem stride 1")],
)
def test_another_network_is_refused_with_what_to_do(base: Path, wrong: dict[str, str], sentence: str) -> None:
    with pytest.raises(ModelError, match=sentence):
        load_base(config(**wrong), base)  # type: ignore[arg-type]


def test_a_folder_without_a_base_model_says_so(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="There is no base model in"):
        load_base(config(), tmp_path)


def test_a_single_altered_weight_is_refused(base: Path) -> None:
    arrays = load((base / WEIGHTS).read_bytes())
    arrays["features.0.0.weight"].flat[0] += np.float32(1e-3)
    (base / WEIGHTS).write_bytes(save(arrays))
    with pytest.raises(IntegrityError, match=r"base\.safetensors was altered"):
        load_base(config(), base)


def test_an_altered_card_is_refused(base: Path) -> None:
    (base / CARD).write_text((base / CARD).read_text().replace("Known biases", "Known virtues"))
    with pytest.raises(IntegrityError, match=r"MODEL_CARD\.md"):
        load_base(config(), base)


def test_an_altered_manifest_and_another_key_are_refused(base: Path) -> None:
    content = (base / MANIFEST).read_bytes()
    facts = json.loads(content) | {"images": 10**9}
    (base / MANIFEST).write_bytes(encode(facts))
    with pytest.raises(IntegrityError, match="signature does not hold"):
        load_base(config(), base)
    (base / MANIFEST).write_bytes(content)
    (base / SIGNATURE).write_bytes(SigningKey.generate().sign(CONTEXT, content))
    with pytest.raises(IntegrityError, match="signature does not hold"):
        load_base(config(), base)


@pytest.mark.parametrize("name", [WEIGHTS, CARD, SIGNATURE, PUBLISHER])
def test_a_missing_file_is_refused(base: Path, name: str) -> None:
    (base / name).unlink()
    with pytest.raises(IntegrityError, match="is refused"):
        load_base(config(), base)


def test_the_manifest_makes_no_promise_of_privacy_and_holds_the_figures(run: Path, base: Path) -> None:
    manifest = open_base(base).manifest
    result = json.loads((run / RESULT).read_text())
    assert not manifest.privacy.private
    assert manifest.metrics["test/ferplus/accuracy"] == result["test"]["ferplus"]["accuracy"]
    assert manifest.metrics["test/fer2013/balanced_accuracy"] == result["test"]["fer2013"]["balanced_accuracy"]
    assert manifest.heads == {"ferplus": EMOTIONS_8, "fer2013": EMOTIONS_7}


def test_the_card_states_what_was_measured_and_what_the_model_is_not_for(run: Path, base: Path) -> None:
    card, result = (base / CARD).read_text(), json.loads((run / RESULT).read_text())
    for head in ("ferplus", "fer2013"):
        found = result["test"][head]
        assert f"| {found['accuracy']:.1%} | {found['balanced_accuracy']:.1%} |" in card
        assert f"{found['calibration_error']:.3f}" in card
        unseen = result["unseen"]["test"][head]
        assert f"| PrivateTest without copies | {unseen['examples']} | {unseen['accuracy']:.1%} |" in card
    assert "0 faces of PublicTest and 0 of PrivateTest are" in card
    for name in EMOTIONS_8:
        assert f"| {name} |" in card
    for heading in ("## Data", "## Protocol", "## Known biases", "## What it must not be used for", "## Privacy", "## Reproduce"):
        assert heading in card
    assert "| 32 | 0.002 |" in card, "the learning curve ends with the last look"
    assert "{" not in card, "every blank is filled"


def test_an_unfinished_training_is_not_shipped(tmp_path: Path) -> None:
    train(tmp_path / "run", stop_at=16)
    with pytest.raises(RunError, match="is not finished"):
        ship(tmp_path / "run", tmp_path / "base", KEY)
    assert not (tmp_path / "base").exists()


def test_figures_of_another_checkpoint_are_not_shipped(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    facts = json.loads((tmp_path / "run" / RESULT).read_text()) | {"images": 40}
    (tmp_path / "run" / RESULT).write_text(json.dumps(facts))
    with pytest.raises(RunError, match="not of the newest checkpoint"):
        ship(tmp_path / "run", tmp_path / "base", KEY)


@pytest.mark.parametrize("version", ["first", "this"])
def test_figures_of_other_weights_after_as_many_faces_are_not_shipped(tmp_path: Path, version: str) -> None:
    run = tmp_path / "run"
    first, second = lengthen_break_and_shorten(run)
    stale = {name: value for name, value in first.items() if version == "this" or name not in LATER_KEYS}
    (run / RESULT).write_text(json.dumps(stale))
    sentence = "of the newest checkpoint; run the training's command" if version == "this" else "of an earlier version; run the"
    with pytest.raises(RunError, match=sentence):
        ship(run, tmp_path / "base", KEY)
    assert not (tmp_path / "base").exists()
    assert train(run) == second, "the command that the sentence names"
    manifest = ship(run, tmp_path / "base", KEY)
    assert manifest.files[WEIGHTS].sha256 == second["weights"]
    assert manifest.metrics["test/ferplus/accuracy"] == second["test"]["ferplus"]["accuracy"]


def test_a_finished_training_of_the_first_version_ships_once_it_is_scored_anew(run: Path, base: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    make_first_version(tmp_path / "run")
    with pytest.raises(RunError, match="of an earlier version; run the training's command again"):
        ship(tmp_path / "run", tmp_path / "again", KEY)
    train(tmp_path / "run", images=32)
    ship(tmp_path / "run", tmp_path / "again", KEY)
    for name in (WEIGHTS, CARD):
        assert (tmp_path / "again" / name).read_bytes() == (base / name).read_bytes()


@pytest.mark.skipif(not (FOLDER / MANIFEST).exists(), reason="No base model was shipped yet.")
def test_the_shipped_model_opens_and_fits_the_default_network() -> None:
    base = open_base()
    weights = base.weights(ModelConfig())
    write_parameters(build_model(ModelConfig()), weights)
    write_parameters(build_model(ModelConfig(classes=EMOTIONS_8)), base.weights(ModelConfig(classes=EMOTIONS_8)))
    assert sum(entry.bytes for entry in base.manifest.files.values()) <= 8_000_000
