"""What a device finds out about its processor before it trains under privacy."""

import threading

import pytest

from common.config import ModelConfig
from common.privacy.dpsgd import rows
from fl_client import model_cache
from fl_client.model_cache import ModelCache

SMALL = ModelConfig(name="mobilenet_v2_tiny_128", stem_stride=2, trainable="head")


@pytest.mark.parametrize(("engine", "trial"), [("bookkeeping", "recorded_is_steady"), ("opacus", "is_steady")])
def test_a_trial_that_failed_is_made_again_and_one_that_ended_is_not(
    monkeypatch: pytest.MonkeyPatch, engine: str, trial: str
) -> None:
    monkeypatch.setattr(rows, "_uneven", threading.Event())
    made: list[object] = []

    def uneven_at_the_second(*_: object) -> bool:
        made.append(None)
        if len(made) == 1:
            raise MemoryError
        return False

    monkeypatch.setattr(model_cache, trial, uneven_at_the_second)
    cache = ModelCache()
    with pytest.raises(MemoryError):
        cache.try_rows(SMALL, engine)
    assert rows.at_once() == 0
    cache.try_rows(SMALL, engine)
    assert rows.at_once() > 0
    cache.try_rows(SMALL, engine)
    assert len(made) == 2
