import itertools
import math

import numpy as np
import pytest
import torch

from common.arrays import Arrays
from common.config import ModelConfig, PrivacyConfig, TrainConfig
from common.emotions import EMOTIONS_7
from common.errors import PrivacyError
from common.parameters import read_parameters
from common.privacy.accountant import Release
from common.privacy.mechanisms import SecureRandom
from fl_client.train import make_plan, shuffled_batches, train_locally
from models.faces.faceset import FaceSet, one_hot
from models.mobilenet import build_model
from models.preprocess import Preprocessing
from models.subset import select_trainable

CONFIG = ModelConfig(name="mobilenet_v2_025", stem_stride=2)


def faces(n: int = 40) -> FaceSet:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (n, 48, 48), dtype=np.uint8)
    return FaceSet(images, one_hot(random.integers(0, 7, n), 7), EMOTIONS_7)


def train(
    config: TrainConfig, release: Release | None = None, subset: str = "full", engine: str = "bookkeeping"
) -> tuple[Arrays, Arrays]:
    torch.manual_seed(0)
    model = build_model(CONFIG)
    select_trainable(model, subset)
    weights = read_parameters(model)
    data = faces()
    plan = make_plan(config, len(data), 1, 1)
    update = train_locally(
        model,
        weights,
        data,
        plan,
        config,
        Preprocessing(),
        privacy=PrivacyConfig.model_validate({"engine": engine}),
        release=release,
        random=SecureRandom(),
        seed=3,
    )
    return weights, update


def norm(update: Arrays) -> float:
    return math.sqrt(sum(float((value.astype(np.float64) ** 2).sum()) for value in update.values()))


def test_steps_and_rate_follow_from_the_number_of_faces() -> None:
    plan = make_plan(TrainConfig(batch_size=32, local_epochs=2), 896, 1, 10)
    assert plan.sampling.rate == pytest.approx(1 / 28)
    assert plan.steps == 56
    assert make_plan(TrainConfig(batch_size=32, local_epochs=1), 320, 1, 10).steps == 10
    assert make_plan(TrainConfig(batch_size=32, local_steps=5), 1000, 1, 10).steps == 5


def test_the_exact_number_of_faces_changes_nothing_that_a_server_could_measure() -> None:
    plans = [make_plan(TrainConfig(batch_size=64), n, 1, 10) for n in (896, 950, 1000, 1023)]
    assert len({(p.steps, p.sampling.rate, p.sampling.expected_batch, p.learning_rate) for p in plans}) == 1
    assert [p.sampling.examples for p in plans] == [896, 950, 1000, 1023]


def test_a_device_with_fewer_faces_than_a_batch_takes_all_of_them() -> None:
    plan = make_plan(TrainConfig(batch_size=32), 10, 1, 10)
    assert (plan.sampling.rate, plan.steps, plan.sampling.expected_batch) == (1.0, 1, 10)


def test_the_learning_rate_falls_along_a_cosine_to_its_floor() -> None:
    config = TrainConfig(learning_rate=0.2, decay=0.1)
    rates = [make_plan(config, 100, number, 11).learning_rate for number in range(1, 12)]
    assert rates[0] == pytest.approx(0.2)
    assert rates[-1] == pytest.approx(0.02)
    assert rates[5] == pytest.approx(0.2 * (0.1 + 0.9 / 2))
    assert all(a > b for a, b in itertools.pairwise(rates))


def test_plain_training_is_a_function_of_its_seed() -> None:
    config = TrainConfig(batch_size=8, local_steps=3)
    first, second = train(config)[1], train(config)[1]
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_private_training_is_not_a_function_of_any_seed() -> None:
    config, release = TrainConfig(batch_size=8, local_steps=1), Release(1.0, 0.2, 1)
    first, second = train(config, release)[1], train(config, release)[1]
    assert any(not np.array_equal(first[name], second[name]) for name in first)


def test_only_the_trained_subset_leaves() -> None:
    weights, update = train(TrainConfig(batch_size=8, local_steps=1), Release(1.0, 0.2, 1), subset="head")
    assert set(update) == {name for name in weights if name.startswith("classifier.")}


def test_training_does_not_touch_the_weights_it_was_given() -> None:
    weights, update = train(TrainConfig(batch_size=8, local_steps=2))
    torch.manual_seed(0)
    assert all(np.array_equal(weights[name], value) for name, value in read_parameters(build_model(CONFIG)).items())
    assert norm(update) > 0


@pytest.mark.parametrize("engine", ["bookkeeping", "opacus"])
def test_the_noise_of_one_step_has_the_calibrated_size(engine: str) -> None:
    """With a huge sigma the update is -lr * noise, whose standard deviation is lr * sigma * C / (q n) per value."""
    config = TrainConfig(batch_size=8, local_steps=1, learning_rate=0.1, momentum=0.0)
    _, update = train(config, Release(1000.0, 0.2, 1), engine=engine)
    values = np.concatenate([value.ravel() for value in update.values()])
    assert values.std() == pytest.approx(0.1 * 1000 * 1.0 / 8, rel=0.02)


@pytest.mark.parametrize("engine", ["bookkeeping", "opacus"])
def test_without_noise_one_clipped_step_cannot_move_further_than_its_bound(engine: str) -> None:
    config = TrainConfig(batch_size=8, local_steps=1, learning_rate=0.1, momentum=0.0)
    _, update = train(config, Release(1e-6, 1.0, 1), engine=engine)
    assert norm(update) <= 0.1 * len(faces()) * 1.0 / 8 + 1e-3


@pytest.mark.parametrize("release", [None, Release(1000.0, 0.2, 1)])
def test_a_first_step_of_adamw_moves_weights_by_its_learning_rate(release: Release | None) -> None:
    """Kingma and Ba 2015, section 2.1: |m / sqrt(v)| is 1 at the first step. Under noise no gradient is zero."""
    config = TrainConfig(optimiser="adamw", batch_size=8, local_steps=1, learning_rate=0.002)
    _, update = train(config, release)
    values = np.abs(np.concatenate([value.ravel() for value in update.values()]))
    assert values.max() == pytest.approx(0.002, rel=0.01)
    if release is not None:
        assert np.median(values) == pytest.approx(0.002, rel=0.01)


@pytest.mark.parametrize(("optimiser", "rate"), [("sgd", 0.05), ("adamw", 0.0005)])
def test_each_optimiser_has_a_learning_rate_of_its_own_and_a_given_one_wins(optimiser: str, rate: float) -> None:
    config = TrainConfig.model_validate({"optimiser": optimiser})
    assert make_plan(config, 100, 1, 10).learning_rate == config.learning_rate == rate
    assert TrainConfig.model_validate({"optimiser": optimiser, "learning_rate": 0.3}).learning_rate == 0.3
    with pytest.raises(ValueError, match="optimiser"):
        TrainConfig.model_validate({"optimiser": "adam"})


def test_fedprox_pulls_towards_the_global_model() -> None:
    free = norm(train(TrainConfig(batch_size=8, local_steps=12, learning_rate=0.05))[1])
    held = norm(train(TrainConfig(batch_size=8, local_steps=12, learning_rate=0.05, proximal_mu=5.0))[1])
    assert held < 0.8 * free


def test_a_private_run_takes_as_many_steps_as_were_debited() -> None:
    drawn: list[int] = []

    class Counting(SecureRandom):
        def uint64(self, count: int) -> np.ndarray:
            drawn.append(count)
            return super().uint64(count)

    config = TrainConfig(batch_size=8, local_steps=99)
    model, data = build_model(CONFIG), faces()
    train_locally(
        model, read_parameters(model), data, make_plan(config, 40, 1, 1), config, Preprocessing(),
        privacy=PrivacyConfig(), release=Release(1.0, 0.2, 3), random=Counting(), seed=0,
    )  # fmt: skip
    assert drawn.count(40) == 3


def test_shuffled_batches_use_every_face_once_per_pass() -> None:
    batches = list(shuffled_batches(10, 5, 4, seed=1))
    assert sorted(np.concatenate(batches[:2])) == list(range(10))
    assert sorted(np.concatenate(batches[2:])) == list(range(10))
    assert [len(b) for b in shuffled_batches(3, 8, 2, seed=1)] == [3, 3]


def test_warps_are_secret_under_privacy(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[int] = []

    def watch(inputs: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        seeds.append(generator.initial_seed())
        return inputs

    monkeypatch.setattr("fl_client.train.augment", watch)
    for release in (None, None, Release(1.0, 1.0, 1), Release(1.0, 1.0, 1)):
        train(TrainConfig(batch_size=64, local_steps=1), release)
    assert seeds[:2] == [3, 3]
    assert len(set(seeds)) == 3


@pytest.mark.parametrize("engine", ["bookkeeping", "opacus"])
def test_augmentations_give_each_face_so_many_rows_and_the_same_batches(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from fl_client import train as module

    rows: list[int] = []

    def counted(inputs: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        rows.append(len(inputs))
        return inputs

    monkeypatch.setattr(module, "augment", counted)
    config = TrainConfig(batch_size=40, local_steps=1, augmentations=3)
    _, update = train(config, Release(1.0, 1.0, 1), engine=engine)
    assert rows == [3 * 40]
    assert 0 < norm(update) < math.inf


def test_copies_that_are_all_the_same_are_refused() -> None:
    with pytest.raises(ValueError, match="augmentations above 1 need augment"):
        TrainConfig(augment=False, augmentations=2)


def test_a_loss_made_from_the_devices_own_counts_is_refused_under_an_epsilon() -> None:
    with pytest.raises(PrivacyError, match="has no epsilon"):
        train(TrainConfig(batch_size=8, local_steps=1, loss="calibrated"), Release(1.0, 0.5, 1))
