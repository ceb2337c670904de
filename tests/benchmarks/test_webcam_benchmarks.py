"""What the camera loop's benchmarks decide by."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks.webcam_measures import USAGES, open_real
from benchmarks.webcam_photographs import find, ways
from benchmarks.webcam_threshold import highest
from common.errors import DataError, RunError
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


def test_a_photograph_within_a_resource_file_is_found_by_where_it_begins(tmp_path: Path) -> None:
    picture = np.full((8, 12, 3), 200, dtype=np.uint8)
    content = cv2.imencode(".png", picture)[1].tobytes()
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "some.rcc").write_bytes(b"qres" + len(content).to_bytes(4, "big") + content + b"more")
    (tmp_path / "plain.png").write_bytes(content)
    found = find([tmp_path], ["deep/some.rcc@8", "plain.png"])
    for one in found.values():
        np.testing.assert_array_equal(one, picture)
    for missing in ("deep/some.rcc@9", "other.png"):
        with pytest.raises(DataError, match="in none of the folders"):
            find([tmp_path], [missing])


def test_no_photograph_is_both_held_out_and_not() -> None:
    known = json.loads((Path(__file__).parents[2] / "benchmarks" / "photographs.json").read_text(encoding="utf-8"))
    held_out = known["held_out"]["faceless"]
    assert len(held_out) == len(set(held_out)) > 60
    assert not set(held_out) & {*known["faces"], *known["faceless"]}


def test_a_split_of_the_packed_faces_is_the_one_that_is_named(tmp_path: Path) -> None:
    votes = np.zeros((6, 10), dtype=np.int64)
    votes[:, 1] = 10
    images = np.arange(6, dtype=np.uint8)[:, None, None] * np.ones((1, 48, 48), dtype=np.uint8)
    np.savez(tmp_path / "ferplus.npz", usage=np.arange(6) % 3, images=images, votes=votes)
    for at, usage in enumerate(USAGES):
        assert open_real(tmp_path, usage).images[:, 0, 0].tolist() == [at, at + 3]
