"""What the camera loop's benchmarks decide by."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.webcam import USAGES, open_real
from benchmarks.webcam_photographs import ways
from benchmarks.webcam_threshold import highest
from common.errors import RunError
from models.detector.grid import THRESHOLD, GridDetector


def test_the_threshold_is_the_highest_up_to_which_all_find_enough() -> None:
    recalls = [(0.5, 0.96), (0.6, 0.94), (0.4, 0.99), (0.7, 0.95)]
    assert highest(recalls, 0.95) == 0.5
    assert highest(recalls, 0.94) == 0.7
    with pytest.raises(RunError, match="finds 99% of"):
        highest(recalls, 0.991)


def test_the_photographs_are_shown_to_what_browsers_run_and_to_thresholds_that_are_asked_for() -> None:
    made = ways([0.7])
    grids = {name: make() for name, make in made.items() if name.startswith("grid")}
    assert all(isinstance(one, GridDetector) for one in grids.values())
    settings = [(one._sure, one._second_look is not None) for one in grids.values()]  # type: ignore[attr-defined]
    assert settings == [(THRESHOLD, True), (THRESHOLD, False), (0.7, True), (0.7, False)]


def test_a_split_of_the_packed_faces_is_the_one_that_is_named(tmp_path: Path) -> None:
    votes = np.zeros((6, 10), dtype=np.int64)
    votes[:, 1] = 10
    images = np.arange(6, dtype=np.uint8)[:, None, None] * np.ones((1, 48, 48), dtype=np.uint8)
    np.savez(tmp_path / "ferplus.npz", usage=np.arange(6) % 3, images=images, votes=votes)
    for at, usage in enumerate(USAGES):
        assert open_real(tmp_path, usage).images[:, 0, 0].tolist() == [at, at + 3]
