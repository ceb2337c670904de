from collections.abc import Sequence

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from common.errors import ConfigError
from fl_client.webcam.tracking import Track, Tracker, TrackingSettings, matched
from models.detector.detection import Detection, overlap
from models.preprocess import Box

boxes = st.tuples(st.integers(-20, 200), st.integers(-20, 200), st.integers(5, 90), st.integers(5, 90))
TEXTURE = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (240, 320), dtype=np.uint8), (0, 0), 2)


class Script:
    """A detector that says what it is told, call by call; the last line stays."""

    name = "script"

    def __init__(self, *lines: Sequence[Box]) -> None:
        self.lines = list(lines)
        self.calls = 0

    def detect(self, picture: NDArray[np.uint8]) -> list[Detection]:
        line = self.lines[min(self.calls, len(self.lines) - 1)]
        self.calls += 1
        return [Detection(box, 0.9) for box in line]


def moved(dx: float, dy: float, growth: float = 1.0, about: tuple[float, float] = (0, 0)) -> NDArray[np.uint8]:
    """A textured frame after everything in it moved and grew."""
    matrix = np.array([[growth, 0, dx + (1 - growth) * about[0]], [0, growth, dy + (1 - growth) * about[1]]])
    grey = cv2.warpAffine(TEXTURE, matrix, (320, 240), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    return np.asarray(cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR), dtype=np.uint8)


def run(tracker: Tracker, frames: int, picture: NDArray[np.uint8] | None = None) -> list[list[Track]]:
    return [tracker.update(moved(0, 0) if picture is None else picture) for _ in range(frames)]


@given(st.lists(boxes, max_size=5), st.lists(boxes, max_size=5))
def test_a_match_uses_each_box_once_and_only_where_the_two_overlap(tracks: list[Box], found: list[Box]) -> None:
    pairs = matched(tracks, found)
    assert len(set(pairs.values())) == len(pairs)
    assert all(overlap(tracks[at], found[to]) >= 0.25 for at, to in pairs.items())
    left = [at for at in range(len(tracks)) if at not in pairs]
    free = [to for to in range(len(found)) if to not in pairs.values()]
    assert not any(overlap(tracks[at], found[to]) >= 0.25 for at in left for to in free)


@given(st.lists(boxes, min_size=1, max_size=5, unique=True))
def test_boxes_match_themselves_whatever_their_order(tracks: list[Box]) -> None:
    pairs = matched(tracks, tracks[::-1])
    assert all(tracks[at] == tracks[::-1][to] for at, to in pairs.items())
    assert len(pairs) == len(tracks)


@given(boxes, boxes)
def test_overlap_is_symmetric_and_whole_only_for_equal_boxes(first: Box, second: Box) -> None:
    assert overlap(first, second) == overlap(second, first)
    assert 0 <= overlap(first, second) <= 1
    assert (overlap(first, second) == 1) == (first == second)


def test_detection_runs_on_every_nth_frame_and_always_while_nobody_is_there() -> None:
    there = Script([(100, 80, 60, 60)])
    run(Tracker(there, TrackingSettings(every=4)), 9)
    assert there.calls == 3
    nobody = Script([])
    run(Tracker(nobody, TrackingSettings(every=4)), 9)
    assert nobody.calls == 9


def test_a_face_keeps_its_number_and_another_one_never_gets_it() -> None:
    left, right = (20, 80, 60, 60), (200, 80, 60, 60)
    script = Script([left], [left, right], [(204, 82, 60, 60), (24, 80, 60, 60)], [right], [right], [left, right])
    seen = run(Tracker(script, TrackingSettings(every=1, patience=2)), 6)
    assert [[track.number for track in tracks] for tracks in seen] == [[1], [1, 2], [1, 2], [1, 2], [2], [3, 2]]
    assert [track.missed for track in seen[3]] == [1, 0]


@pytest.mark.parametrize(("dx", "dy", "growth"), [(3.0, 0.0, 1.0), (-0.4, 0.3, 1.0), (1.5, -2.0, 1.02), (0.0, 0.0, 0.97)])
def test_between_detections_the_box_goes_along_with_the_picture(dx: float, dy: float, growth: float) -> None:
    """Also by less than a pixel a frame, which rounding must not swallow."""
    box = (120, 80, 80, 80)
    centre = (160.0, 120.0)
    tracker = Tracker(Script([box]), TrackingSettings(every=9))
    tracker.update(moved(0, 0))
    for step in range(1, 8):
        (track,) = tracker.update(moved(step * dx, step * dy, growth**step, centre))
    side = 80 * growth**7
    truth = (centre[0] + 7 * dx - side / 2, centre[1] + 7 * dy - side / 2, side, side)
    assert np.abs(np.array(track.exact) - truth).max() < 1.5
    assert track.box[2] == track.box[3]


def test_held_boxes_stay_where_they_were_found() -> None:
    tracker = Tracker(Script([(120, 80, 80, 80)]), TrackingSettings(every=5, between="hold"))
    seen = [tracker.update(moved(4 * step, 0)) for step in range(4)]
    assert {tracks[0].box for tracks in seen} == {(120, 80, 80, 80)}


def test_where_the_picture_changes_altogether_it_is_searched_at_once() -> None:
    script = Script([(120, 80, 80, 80)], [])
    tracker = Tracker(script, TrackingSettings(every=30, patience=1))
    assert len(tracker.update(moved(0, 0))) == 1
    assert tracker.update(np.full((240, 320, 3), 90, dtype=np.uint8)) == []
    assert script.calls == 2


def test_a_new_detection_may_pull_a_followed_box_only_part_of_the_way() -> None:
    script = Script([(100, 80, 60, 60)], [(110, 80, 60, 60)])
    tracker = Tracker(script, TrackingSettings(every=1, weight=0.5))
    tracker.update(moved(0, 0))
    assert tracker.update(moved(0, 0))[0].box == (105, 80, 60, 60)


def test_frames_of_another_size_and_boxes_beyond_the_edge_are_no_trouble() -> None:
    tracker = Tracker(Script([(-30, -30, 80, 80), (300, 220, 60, 60)]), TrackingSettings(every=9))
    for picture in (moved(0, 0), moved(1, 1), moved(1, 1)[:100, :100], np.zeros((1, 1, 3), dtype=np.uint8)):
        assert len(tracker.update(picture)) == 2


@pytest.mark.parametrize("values", [{"every": 0}, {"patience": 0}, {"weight": 0.0}, {"weight": 1.5}])
def test_settings_that_make_no_sense_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="must"):
        TrackingSettings(**values)  # type: ignore[arg-type]
