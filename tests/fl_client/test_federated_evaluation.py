"""Counts of federated evaluation: in the secure sum alone, under noise that the ledger was debited with."""

import secrets
from pathlib import Path

import numpy as np
import pytest

from common.config import PrivacyConfig, make_config
from common.errors import ConfigError
from common.messages import TrainRequest, encode_request
from common.privacy.accountant import Release, spent_epsilon
from common.privacy.ledger import Ledger
from common.secagg.wire import Terms
from common.sum_encoding import MOST_FACES, Scored
from fl_client.device import Device
from models.preprocess import Preprocessing
from tests.fl_client.test_secure_sum import MODEL, WEIGHTS, Owner, faces, request


def asked(noise: float | None = 8.0, private: bool = True) -> TrainRequest:
    return request().model_copy(update={"evaluation_noise": noise, "privacy": PrivacyConfig(private=private)})


def trained(folder: Path, wish: TrainRequest, **policy: object) -> Device:
    owner = Owner(folder, 0, **policy)  # type: ignore[arg-type]
    owner.ask(encode_request(wish, WEIGHTS))
    return owner.device


def counts(device: Device) -> np.ndarray:
    update = device.sums.take("run-1", 1, 0).update
    assert update is not None
    return update[7 * 1281 :] * MOST_FACES


def test_the_counts_stand_behind_the_update_and_are_exact_without_privacy(tmp_path: Path) -> None:
    device = trained(tmp_path, asked(private=False), allow_non_private=True)
    right, total = counts(device)
    assert total == len(faces(40))
    assert 0 <= right <= total
    assert right == round(float(right))


def test_nothing_is_counted_unless_it_is_asked_for(tmp_path: Path) -> None:
    device = trained(tmp_path, asked(None))
    assert len(counts(device)) == 0
    assert len(Ledger(device.ledger).entries) == 1


def test_noise_on_the_counts_is_what_was_debited(tmp_path: Path) -> None:
    device = trained(tmp_path, asked(8.0))
    entries = Ledger(device.ledger).entries
    assert [entry.run for entry in entries] == ["run-1.evaluation", "run-1"]
    assert entries[0].release == Release(8.0, 1.0, 1)
    model, wish = device.models.get(MODEL), asked(8.0)
    drawn = np.array([device._counts(model, faces(7), Preprocessing(), wish) for _ in range(400)]) * MOST_FACES
    assert drawn.std(0) == pytest.approx(8.0 * np.sqrt(2), rel=0.13)
    assert abs(np.corrcoef(drawn.T)[0, 1]) < 0.2
    assert drawn[:, 1].mean() == pytest.approx(7, abs=2.5)


@pytest.mark.parametrize("clip", [0.05, 2.0])
def test_counts_of_many_faces_survive_the_sum_whatever_the_clip(clip: float) -> None:
    invited = Terms("run-1", 1, 3, bytes(32), tuple(bytes([n]) * 32 for n in range(3)))
    encoding = Scored(1, clip)
    vectors = [
        encoding.encode(np.array([0.01, 9_000 / MOST_FACES, 12_000 / MOST_FACES], np.float32), invited, secrets.token_bytes)
        for _ in range(3)
    ]
    decoded = encoding.decode(np.add.reduce(vectors, dtype=np.uint32), invited)
    assert decoded.scored == pytest.approx((27_000, 36_000), rel=1e-4)
    assert decoded.total == pytest.approx([0.03], abs=1e-6)


def test_training_and_evaluation_together_stay_within_the_budget_and_use_it_up(tmp_path: Path) -> None:
    owner = Owner(tmp_path, 0)
    for number in (1, 2, 3):
        owner.ask(encode_request(asked(8.0).model_copy(update={"round": number}), WEIGHTS))
    ledger = Ledger(owner.device.ledger)
    assert len(ledger.entries) == 6
    assert 7.8 < ledger.epsilon(1e-5, "rdp") <= 8.0
    assert spent_epsilon([Release(8.0, 1.0, 3)], 1e-5) > 0.5


@pytest.mark.parametrize("other", [{"upload": {"secure": False}}, {"client_level": {"mode": "central"}}])
def test_it_goes_through_a_secure_sum_without_client_level_promises_or_not_at_all(other: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="federated evaluation"):
        make_config({"evaluation": {"federated": True}} | other)
