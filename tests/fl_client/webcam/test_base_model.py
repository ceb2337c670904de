import stat
from pathlib import Path

import numpy as np
import pytest

from common.config import ModelConfig
from common.emotions import EMOTIONS_8
from common.errors import ConfigError, IntegrityError
from fl_client.webcam import base_model
from fl_client.webcam.badge import Tone
from fl_client.webcam.base_model import BaseSource
from fl_client.webcam.choice import choose_model
from fl_client.webcam.classifier import Classifier
from fl_client.webcam.registry import RegistrySource
from fl_client.webcam.remembered import remember, remembered
from models.class_counts import BASE
from models.pretrained import FOLDER, Base, open_base

from .conftest import brightness_onnx


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Each making of the ONNX file; what comes out is a small one."""
    times: list[str] = []

    def quickly(base: Base, config: ModelConfig) -> bytes:
        times.append(config.name)
        return brightness_onnx(len(config.classes))

    monkeypatch.setattr(base_model, "_exported", quickly)
    return times


def test_the_base_model_says_what_it_is(made: list[str]) -> None:
    model = BaseSource().newest()
    assert model.classes == EMOTIONS_8
    assert not model.private
    assert model.privacy == "base model: public pictures, not private training"
    assert model.promise.startswith("NOT PRIVATE: ")
    assert "FER2013" in model.promise
    assert model.signer == open_base().publisher.fingerprint
    assert (model.seal.tone, model.seal.promises, model.seal.devices) == (Tone.PUBLIC, (model.privacy,), "")
    assert BaseSource().newer() is None
    assert model.counts is not None
    assert dict(zip(model.classes, model.counts, strict=True)) == BASE


def test_it_is_made_once_and_kept_for_its_owner_only(made: list[str], tmp_path: Path) -> None:
    said: list[str] = []
    first, second = (BaseSource(said.append).newest() for _ in range(2))
    assert first == second
    assert len(made) == 1
    assert said == ["Preparing the base model; this takes some seconds, the first time only."]
    (path,) = (tmp_path / "cache" / "emofl").iterdir()
    assert (stat.S_IMODE(path.stat().st_mode), stat.S_IMODE(path.parent.stat().st_mode)) == (0o600, 0o700)


def test_a_damaged_or_exchanged_file_is_made_anew(made: list[str], tmp_path: Path) -> None:
    good = BaseSource().newest().onnx
    (path,) = (tmp_path / "cache" / "emofl").iterdir()
    path.write_bytes(brightness_onnx(8, sharpness=-4.0))
    assert BaseSource().newest().onnx == good
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere.onnx")
    (tmp_path / "elsewhere.onnx").write_bytes(good)
    assert BaseSource().newest().onnx == good
    assert len(made) == 3


def test_another_base_or_other_code_makes_another_file(made: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    BaseSource().newest()
    monkeypatch.setattr(base_model, "MAKERS", ("models.mobilenet",))
    BaseSource().newest()
    assert len(made) == 2
    assert len(list((tmp_path / "cache" / "emofl").iterdir())) == 1


def test_a_cache_that_cannot_be_written_is_no_harm(made: list[str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert BaseSource(cache=tmp_path / "file" / "emofl").newest().classes == EMOTIONS_8


def test_an_altered_base_model_is_refused(made: list[str], tmp_path: Path) -> None:
    for file in FOLDER.iterdir():
        if file.is_file():
            (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = bytearray((tmp_path / "base.safetensors").read_bytes())
    weights[-1] ^= 1
    (tmp_path / "base.safetensors").write_bytes(weights)
    with pytest.raises(IntegrityError, match=r"base\.safetensors was altered"):
        BaseSource(folder=tmp_path).newest()
    assert made == []


@pytest.mark.slow
def test_the_shipped_model_runs_as_torch_does() -> None:
    import torch

    from models.mobilenet import build_model

    model = BaseSource().newest()
    base, config = open_base(), ModelConfig(classes=EMOTIONS_8)
    network = build_model(config).eval()
    network.load_state_dict({name: torch.from_numpy(array) for name, array in base.weights(config).items()})
    picture = np.random.default_rng(0).integers(0, 256, (48, 48, 3)).astype(np.uint8)
    got = Classifier(model).probabilities(picture, [(0, 0, 48, 48)])[0]
    with torch.inference_mode():
        inputs = torch.from_numpy(model.preprocessing.normalise(model.preprocessing.whole(picture)[None]))
        expected = torch.softmax(network(inputs), dim=1)[0].numpy()
    np.testing.assert_allclose(got, expected, atol=1e-4)


def test_without_a_word_the_base_model_is_used_and_then_the_registry_used_last(registry: Path) -> None:
    said: list[str] = []
    first = choose_model(None, None, None, said.append)
    assert isinstance(first.source, BaseSource)
    assert first.follow is None
    choose_model(None, registry, None, said.append).keep_in_mind(headless=False)
    assert said == []
    then = choose_model(None, None, None, said.append)
    assert isinstance(then.source, RegistrySource)
    assert then.follow == registry
    assert said == [f"The registry used last: {registry} (--model base for the base model)."]
    assert isinstance(choose_model(Path("base"), None, None, said.append).source, BaseSource)


def test_what_a_script_uses_is_not_remembered_and_what_is_gone_is_forgotten(registry: Path, tmp_path: Path) -> None:
    choose_model(None, registry, None, print).keep_in_mind(headless=True)
    assert remembered() is None
    remember(tmp_path / "gone")
    assert remembered() is None
    remember(registry)
    assert remembered() == registry
    assert stat.S_IMODE((tmp_path / "state" / "emofl" / "webcam_registry").stat().st_mode) == 0o600


def test_a_publisher_without_a_registry_is_refused() -> None:
    with pytest.raises(ConfigError, match="--trust names the publisher of a --registry or a --model"):
        choose_model(None, None, "ab" * 32, print)
