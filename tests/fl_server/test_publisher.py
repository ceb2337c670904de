from typing import Any

import pytest

from common.config import ModelConfig, make_config
from fl_server.publisher import told_counts

TOLD = dict.fromkeys(ModelConfig().classes, 12.5)
PUBLIC = dict.fromkeys(ModelConfig().classes, 100.0)
ASKED = {"evaluation": {"class_histogram": True}}
OPEN = {"privacy": {"private": False}}


def told(histogram: dict[str, float] | None, *settings: dict[str, Any]) -> dict[str, float]:
    values: dict[str, Any] = {}
    for one in settings:
        values |= one
    return dict(told_counts(make_config(values), histogram))


def test_a_noisy_histogram_is_told_as_soon_as_there_is_one() -> None:
    assert told(None, ASKED) == {}
    assert told(TOLD, ASKED) == TOLD


def test_counts_that_no_noise_protects_are_never_told() -> None:
    assert told(TOLD, ASKED, OPEN) == {}


@pytest.mark.parametrize("privacy", [{}, OPEN])
def test_public_counts_are_told_if_they_are_of_exactly_the_models_classes(privacy: dict[str, Any]) -> None:
    assert told(None, privacy, {"train": {"class_counts": PUBLIC}}) == PUBLIC
    assert told(None, privacy, {"train": {"class_counts": PUBLIC | {"contempt": 3.0}}}) == {}
    assert told(None, privacy, {"train": {"class_counts": {"fear": 3.0}}}) == {}


@pytest.mark.parametrize("loss", ["class-balanced", "logit-adjusted"])
def test_a_model_whose_loss_evened_the_classes_tells_none_so_that_nobody_does_it_twice(loss: str) -> None:
    assert told(TOLD, ASKED, {"train": {"loss": loss}}) == {}
    assert told(None, {"train": {"loss": loss, "class_counts": PUBLIC}}) == {}


def test_what_keeps_public_frequencies_tells_them() -> None:
    assert told(None, OPEN, {"train": {"loss": "calibrated", "class_counts": PUBLIC}}) == PUBLIC
