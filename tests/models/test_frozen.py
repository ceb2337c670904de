import numpy as np
import pytest
import torch
from torch import nn

from common.arrays import Arrays
from common.config import ModelConfig, PrivacyConfig, TrainConfig
from common.emotions import EMOTIONS_7
from common.parameters import read_parameters
from common.privacy.dpsgd.rows import even_rows
from common.privacy.mechanisms import SecureRandom
from fl_client.train import make_plan, train_locally
from models import frozen as module
from models.evaluate import evaluate
from models.faces.faceset import FaceSet, one_hot
from models.frozen import FeatureCache, split_frozen
from models.mobilenet import build_model
from models.preprocess import Preprocessing
from models.subset import select_trainable

NAMES = ("mobilenet_v2_025", "mobilenet_v3_small_050")


def faces(n: int = 12, seed: int = 0) -> FaceSet:
    random = np.random.default_rng(seed)
    return FaceSet(random.integers(0, 256, (n, 48, 48), dtype=np.uint8), one_hot(random.integers(0, 7, n), 7), EMOTIONS_7)


def network(name: str, subset: str) -> nn.Module:
    torch.manual_seed(0)
    model = build_model(ModelConfig(name=name, stem_stride=2))
    select_trainable(model, subset)
    return model


def update(model: nn.Module, weights: Arrays, cache: FeatureCache | None, *, augment: bool = False) -> Arrays:
    config = TrainConfig(batch_size=4, local_steps=5, augment=augment)
    data = faces()
    return train_locally(
        model,
        weights,
        data,
        make_plan(config, len(data), 1, 1),
        config,
        Preprocessing(),
        privacy=PrivacyConfig(private=False),
        release=None,
        random=SecureRandom(),
        seed=3,
        features=cache,
    )


class Counted(nn.Identity):
    """Counts the rows that come through a network's first layer."""

    rows = 0

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        self.rows += len(input)
        return input


def counted(model: nn.Module) -> Counted:
    first = model.get_submodule("features.0")
    assert isinstance(first, nn.Sequential)
    counter = Counted()
    first.insert(0, counter)
    return counter


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("subset", ["last-layer", "head", "last-block"])
def test_kept_features_give_the_same_update(name: str, subset: str) -> None:
    model = network(name, subset)
    weights = read_parameters(model)
    expected = update(model, weights, None)
    found = update(model, weights, FeatureCache())
    assert set(found) == set(expected)
    for key, value in expected.items():
        assert np.allclose(found[key], value, atol=1e-5)


def test_each_face_goes_through_the_frozen_layers_once_in_all_rounds() -> None:
    model = network(NAMES[0], "head")
    weights, cache = read_parameters(model), FeatureCache()
    counter = counted(model)
    names = list(read_parameters(model))
    renamed = dict(zip(names, weights.values(), strict=True))
    moved = update(model, renamed, cache)
    assert counter.rows == even_rows(len(faces()))
    before = counter.rows
    update(model, renamed | {name: renamed[name] + value for name, value in moved.items()}, cache)
    assert counter.rows == before


def test_other_frozen_weights_and_other_faces_are_computed_anew() -> None:
    cache, model = FeatureCache(), network(NAMES[0], "head")
    parts = split_frozen(model)
    assert parts is not None
    first = cache.of(parts[0], faces(), Preprocessing())
    assert cache.of(parts[0], faces(), Preprocessing()) is first
    assert cache.of(parts[0], faces(seed=1), Preprocessing()) is not first
    assert cache.of(parts[0], faces(), Preprocessing(mean=0.4)) is not first
    with torch.no_grad():
        next(parts[0].parameters()).add_(1e-3)
    assert cache.of(parts[0], faces(), Preprocessing()) is not first


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    cache, model = FeatureCache(), network(NAMES[0], "head")
    parts = split_frozen(model)
    assert parts is not None
    monkeypatch.setattr(module, "MOST_BYTES", 1)
    for seed in range(3):
        data = faces(seed=seed)
        cache.of(parts[0], data, Preprocessing()).rows(np.arange(3), parts[0], data, Preprocessing())
    assert len(cache._kept) <= 2


def test_a_network_that_trains_from_its_first_layer_has_no_frozen_front() -> None:
    assert split_frozen(network(NAMES[0], "full")) is None


def test_augmented_faces_are_never_kept() -> None:
    cache, model = FeatureCache(), network(NAMES[0], "head")
    update(model, read_parameters(model), cache, augment=True)
    assert len(cache._kept) == 0


@pytest.mark.parametrize("subset", ["last-layer", "head", "last-block", "full"])
def test_kept_features_give_the_same_scores_and_are_computed_once(subset: str) -> None:
    model, data, cache = network(NAMES[1], subset), faces(9), FeatureCache()
    expected = evaluate(model, data, Preprocessing())
    counter = counted(model)
    found = [evaluate(model, data, Preprocessing(), batch=4, features=cache) for _ in range(2)]
    assert counter.rows == (2 * 3 * even_rows(4) if subset == "full" else even_rows(9))  # blank ones fill up
    for one in found:
        assert (one.confusion == expected.confusion).all()
        assert one.loss == pytest.approx(expected.loss, abs=1e-5)


def test_scores_follow_the_trained_layers_though_features_are_kept() -> None:
    model, data, cache = network(NAMES[1], "last-block"), faces(9), FeatureCache()
    before = evaluate(model, data, Preprocessing(), features=cache)
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.add_(0.3 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1)))
    after = evaluate(model, data, Preprocessing(), features=cache)
    assert after.loss != pytest.approx(before.loss, abs=1e-3)
    assert after.loss == pytest.approx(evaluate(model, data, Preprocessing()).loss, abs=1e-4)


def test_dropout_before_the_trained_layer_is_drawn_anew_each_time() -> None:
    model = build_model(ModelConfig(name="mobilenet_v3_small_050", stem_stride=2, dropout=0.5))
    select_trainable(model, "last-layer")
    parts = split_frozen(model.train())
    assert parts is not None
    assert not any(isinstance(layer, nn.Dropout) for layer in parts[0].modules())
    assert any(isinstance(layer, nn.Dropout) for layer in parts[1].modules())
