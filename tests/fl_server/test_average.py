import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_server.average import follow, shown


def model(value: float) -> dict[str, np.ndarray]:
    return {"a": np.full((2, 3), value, dtype=np.float32), "b": np.full(1, -value, dtype=np.float32)}


def test_without_a_decay_the_model_itself_is_shown() -> None:
    assert follow(model(1), {}, 0.0, 3) == {}
    assert shown(model(1), {"momentum/a": np.zeros(1)})["a"][0, 0] == 1


@given(st.lists(st.floats(-3, 3), min_size=1, max_size=20), st.floats(0.01, 0.99))
def test_the_average_lies_within_what_was_averaged_and_ends_where_the_models_stay(values: list[float], decay: float) -> None:
    remembered: dict[str, np.ndarray] = {}
    for t, value in enumerate(values):
        remembered = follow(model(value), remembered, decay, t)
    found = float(shown(model(values[-1]), remembered)["a"][0, 0])
    assert min(values) - 1e-4 <= found <= max(values) + 1e-4


def test_the_old_average_keeps_little_at_first_and_the_asked_part_later() -> None:
    early = follow(model(1), {"ema/a": model(0)["a"], "ema/b": model(0)["b"]}, 0.9, 0)
    late = follow(model(1), {"ema/a": model(0)["a"], "ema/b": model(0)["b"]}, 0.9, 1000)
    assert early["ema/a"][0, 0] == pytest.approx(0.9)
    assert late["ema/a"][0, 0] == pytest.approx(0.1)


def test_what_does_not_change_is_not_moved_by_rounding() -> None:
    """Layers that are frozen stay the very same, so that what they make of faces need not be computed again."""
    frozen = np.random.default_rng(0).standard_normal(10_000).astype(np.float32)
    remembered: dict[str, np.ndarray] = {}
    for accepted in range(6):
        remembered = follow({"frozen": frozen, "trained": frozen * accepted}, remembered, 0.9, accepted)
        model = shown({"frozen": frozen, "trained": frozen * accepted}, remembered)
        assert np.array_equal(model["frozen"], frozen)
    assert not np.array_equal(model["trained"], frozen * 5)
