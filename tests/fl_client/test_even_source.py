import numpy as np
import pytest

from common.errors import ConfigError
from fl_client.even_source import EvenSource
from fl_client.webcam.model import LoopModel
from models.preprocess import Preprocessing
from models.prior import even_shift
from tests.fl_client.versions import Versions

COUNTS = np.array([900.0, 90.0, 10.0])


def model(version: str, counts: np.ndarray | None) -> LoopModel:
    return LoopModel(("neutral", "happiness", "fear"), Preprocessing(), b"", version, "NON-PRIVATE", False, counts=counts)


def test_each_version_is_shifted_by_its_own_counts() -> None:
    source = EvenSource(Versions(model("v1", COUNTS), model("v2", COUNTS[::-1])), 0.5)
    first, second = source.newest(), source.newer()
    assert first.shift is not None
    assert first.shift == pytest.approx(even_shift(COUNTS, 0.5))
    assert second is not None
    assert second.shift == pytest.approx(even_shift(COUNTS[::-1], 0.5))
    assert source.newer() is None


def test_a_version_that_does_not_tell_its_counts_is_one_sentence_that_says_what_to_do() -> None:
    source = EvenSource(Versions(model("v1", None), model("v2", None)), 0.5)
    for ask in (source.newest, source.newer):
        with pytest.raises(
            ConfigError, match=r"^The model v[12] does not .* --class-histogram .* or leave --even-classes out\.$"
        ):
            ask()
