"""The class histogram: once, in the secure sum alone, under noise that the ledger was debited with; then the loss uses it."""

import secrets
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from common.config import ClientLevelRequest, PrivacyConfig, UploadConfig, make_config
from common.errors import ConfigError, PrivacyError
from common.messages import TrainRequest, encode_request
from common.privacy.accountant import Release
from common.privacy.histogram import SENSITIVITY, class_histogram
from common.privacy.ledger import Ledger
from common.privacy.mechanisms import SecureRandom
from common.secagg.wire import Terms
from common.sum_encoding import MOST_FACES, Scored
from fl_client.noisy_counts import noisy_counts
from models.preprocess import Preprocessing
from tests.fl_client.test_device import device, weights
from tests.fl_client.test_device import request as plain_request
from tests.fl_client.test_federated_evaluation import counts, trained
from tests.fl_client.test_secure_sum import MODEL, WEIGHTS, Owner, faces, request


def asked(noise: float | None = 8.0, evaluation: float | None = None, private: bool = True) -> TrainRequest:
    update = {"histogram_noise": noise, "evaluation_noise": evaluation, "privacy": PrivacyConfig(private=private)}
    return request().model_copy(update=update)


def labels(raw: np.ndarray) -> np.ndarray:
    return np.asarray((raw / raw.sum(1, keepdims=True)).astype(np.float32))


@given(arrays(np.float64, (5, 4), elements=st.floats(0.01, 1)))
def test_one_soft_label_more_moves_the_histogram_by_at_most_its_sensitivity(raw: np.ndarray) -> None:
    targets = labels(raw).astype(np.float64)
    moved = np.linalg.norm(targets.sum(0) - targets[:-1].sum(0))
    assert moved <= SENSITIVITY * (1 + 1e-6)


def test_the_noise_is_what_the_release_says() -> None:
    targets = labels(np.ones((50, 400)))
    found = class_histogram(targets, 3.0, SecureRandom()) - targets.sum(0)
    assert found.std() == pytest.approx(3.0, rel=0.2)


def test_labels_that_would_break_the_sensitivity_are_refused() -> None:
    with pytest.raises(PrivacyError):
        class_histogram(np.full((2, 3), 2.0, np.float32), 1.0, SecureRandom())
    with pytest.raises(PrivacyError):
        class_histogram(np.array([[1.5, -0.5]], np.float32), 1.0, SecureRandom())


@pytest.mark.parametrize("row", [[1.001, 0.0, 0.0], [0.5005, 0.5005, 0.0]])
def test_a_row_that_sums_to_a_little_more_than_1_moves_it_by_no_more_than_the_sensitivity(row: list[float]) -> None:
    many = class_histogram(np.array([row] * 1000, np.float32), 1e-9, SecureRandom())
    assert many.sum() <= 1000 * (1 + 1e-7)
    assert np.linalg.norm(many) <= 1000 * SENSITIVITY * (1 + 1e-7)


def test_the_histogram_stands_behind_the_update_and_is_exact_without_privacy(tmp_path: Path) -> None:
    own = trained(tmp_path, asked(private=False), allow_non_private=True)
    assert list(counts(own)) == list(faces(40).targets.sum(0))


def test_it_is_debited_before_and_beside_the_training_and_the_evaluation(tmp_path: Path) -> None:
    own = trained(tmp_path, asked(8.0, 9.0))
    entries = Ledger(own.ledger).entries
    assert [entry.run for entry in entries] == ["run-1.histogram", "run-1.evaluation", "run-1"]
    assert [entry.release for entry in entries[:2]] == [Release(8.0, 1.0, 1), Release(9.0, 1.0, 1)]
    assert len(counts(own)) == 2 + len(MODEL.classes)
    assert Ledger(own.ledger).epsilon(1e-5, "rdp") <= 8.0


def test_its_noise_is_what_was_debited(tmp_path: Path) -> None:
    own = Owner(tmp_path, 0).device
    model, wish = own.models.get(MODEL), asked(6.0)
    drawn = np.array([noisy_counts(model, faces(40), Preprocessing(), wish, SecureRandom) for _ in range(400)]) * MOST_FACES
    assert drawn.std(0) == pytest.approx(6.0, rel=0.2)
    assert drawn.mean(0) == pytest.approx(faces(40).targets.sum(0), abs=1.5)


def test_training_evaluation_and_histogram_together_stay_within_the_budget(tmp_path: Path) -> None:
    owner = Owner(tmp_path, 0)
    for number in (1, 2, 3):
        wish = asked(8.0 if number == 1 else None, 8.0).model_copy(update={"round": number})
        owner.ask(encode_request(wish, WEIGHTS))
    ledger = Ledger(owner.device.ledger)
    assert len(ledger.entries) == 7
    assert 7.8 < ledger.epsilon(1e-5, "rdp") <= 8.0


def test_too_little_noise_is_refused_and_nothing_is_spent(tmp_path: Path) -> None:
    owner = Owner(tmp_path, 0)
    owner.ask(encode_request(asked(0.05), WEIGHTS))
    assert not Ledger(owner.device.ledger).entries


@pytest.mark.parametrize("scored", [True, False])
def test_all_counts_survive_the_sum(scored: bool) -> None:
    invited = Terms("run-1", 1, 4 + 2 * scored, bytes(32), tuple(bytes([n]) * 32 for n in range(3)))
    encoding = Scored(1, 2.0, scored=scored, classes=3)
    told = [*([900.0, 1200.0] if scored else []), 700.0, -20.0, 500.0]
    vector = np.array([0.01, *(value / MOST_FACES for value in told)], np.float32)
    assert encoding.vector_length == invited.length
    total = np.add.reduce([encoding.encode(vector, invited, secrets.token_bytes) for _ in range(3)], dtype=np.uint32)
    decoded = encoding.decode(total, invited)
    assert decoded.histogram == pytest.approx((2100, -60, 1500), rel=1e-2)
    assert decoded.scored == (pytest.approx((2700, 3600), rel=1e-2) if scored else None)
    assert decoded.total == pytest.approx([0.03], abs=1e-6)


@pytest.mark.parametrize("other", [{"upload": {"secure": False}}, {"client_level": {"mode": "central"}}])
def test_it_goes_through_a_secure_sum_without_client_level_promises_or_not_at_all(other: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="class histogram"):
        make_config({"evaluation": {"class_histogram": True}, "train": {"loss": "class-balanced"}} | other)


def test_a_device_refuses_it_outside_of_a_secure_sum_or_under_a_client_level_promise(tmp_path: Path) -> None:
    own = device(tmp_path)
    wish = plain_request().model_copy(update={"histogram_noise": 8.0})
    assert own.answer(wish, weights())[0].reason == "bad-request"
    promise = ClientLevelRequest(mode="central", epsilon=8, delta=1e-5, clip=1, bits=20, noise_multiplier=1, rounds=3)
    secure = wish.model_copy(update={"upload": UploadConfig(), "client_level": promise})
    assert own.answer(secure, weights())[0].reason == "bad-request"
    assert not Ledger(own.ledger).entries


@pytest.mark.parametrize("loss", ["cross-entropy", "class-balanced"])
def test_it_is_for_any_loss_that_is_given_no_counts(loss: str) -> None:
    counts = dict.fromkeys(MODEL.classes, 10)
    with pytest.raises(ConfigError, match="leave out one of them"):
        make_config({"evaluation": {"class_histogram": True}, "train": {"loss": loss, "class_counts": counts}})
    assert make_config({"evaluation": {"class_histogram": True}, "train": {"loss": loss}})


def test_a_loss_that_needs_counts_gets_them_or_asks_for_them() -> None:
    counts = dict.fromkeys(MODEL.classes, 10)
    assert make_config({"evaluation": {"class_histogram": True}, "train": {"loss": "class-balanced"}})
    assert make_config({"train": {"loss": "class-balanced", "class_counts": counts}})
    with pytest.raises(ConfigError, match="needs public counts"):
        make_config({"train": {"loss": "class-balanced"}})
    with pytest.raises(ConfigError, match="'joy' is no emotion"):
        make_config({"train": {"class_counts": {"joy": 1}}})
    with pytest.raises(ConfigError, match="nothing would be uploaded"):
        make_config({"train": {"local_layers": "head"}, "model": {"trainable": "head"}})
