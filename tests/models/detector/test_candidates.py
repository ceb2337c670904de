import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import DependencyError
from models.detector.candidates import Candidates, blended, padded, reduced
from models.onnx_session import open_session

squares = st.tuples(st.floats(0, 200), st.floats(0, 200), st.floats(5, 80), st.floats(0.1, 1))


def candidates(rows: list[tuple[float, float, float, float]]) -> Candidates:
    table = np.array(rows, dtype=np.float32).reshape(-1, 4)
    return Candidates(table[:, 3], table[:, :3])


@settings(deadline=None)
@given(st.lists(squares, max_size=12))
def test_what_is_left_lies_within_what_was_found_and_in_order(rows: list[tuple[float, float, float, float]]) -> None:
    detections = blended(candidates(rows), 1.0)
    assert [one.box for one in detections] == sorted(one.box for one in detections)
    assert {one.score for one in detections} <= {np.float32(row[3]).item() for row in rows}
    assert bool(rows) == bool(detections)
    for one in detections:
        assert one.box[2] == one.box[3]
        assert min(row[2] for row in rows) - 1 <= one.box[2] <= max(row[2] for row in rows) + 1


def test_neighbours_of_one_face_are_averaged_by_their_scores() -> None:
    (face,) = blended(candidates([(100, 100, 40, 0.9), (104, 100, 40, 0.45)]), 2.0)
    assert face.box == (round(2 * (100 + 4 / 3) - 40), 160, 80, 80)
    assert face.score == pytest.approx(0.9)


def test_two_faces_beside_each_other_stay_two_and_a_part_of_a_face_is_none() -> None:
    assert len(blended(candidates([(50, 50, 40, 0.9), (92, 50, 40, 0.8)]), 1.0)) == 2
    assert len(blended(candidates([(50, 50, 60, 0.9), (52, 48, 28, 0.8)]), 1.0)) == 1


def test_key_points_are_averaged_and_scaled_with_the_box() -> None:
    points = np.zeros((2, 6, 2), dtype=np.float32)
    points[1] = 3
    found = Candidates(np.array([0.6, 0.3], dtype=np.float32), np.full((2, 3), 50, dtype=np.float32), points)
    (face,) = blended(found, 2.0)
    assert face.keypoints is not None
    assert face.keypoints[5] == pytest.approx((2.0, 2.0))


@settings(deadline=None)
@given(st.integers(1, 700), st.integers(1, 700), st.integers(64, 320))
def test_a_picture_is_reduced_to_the_longest_side_and_never_enlarged(rows: int, columns: int, longest: int) -> None:
    small, factor = reduced(np.zeros((rows, columns), dtype=np.uint8), longest)
    assert max(small.shape) == min(longest, max(rows, columns))
    assert factor == max(1.0, max(rows, columns) / longest)
    assert abs(small.shape[0] * factor - rows) <= factor


def test_reducing_averages_so_that_fine_stripes_do_not_become_coarse_ones() -> None:
    stripes = np.tile(np.array([0, 255], dtype=np.uint8), (480, 320))
    small, _ = reduced(stripes, 256)
    assert small.std() < 12
    photo = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (480, 640), dtype=np.uint8), (0, 0), 4)
    exact = cv2.resize(photo, (256, 192), interpolation=cv2.INTER_AREA)
    assert np.abs(reduced(photo, 256)[0].astype(int) - exact).mean() < 1


@settings(deadline=None)
@given(st.integers(1, 60), st.integers(1, 60))
def test_padding_fills_up_to_the_stride_on_the_right_and_below(rows: int, columns: int) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (rows, columns), dtype=np.uint8)
    whole = padded(picture)
    assert whole.shape[0] % 16 == whole.shape[1] % 16 == 0
    assert whole.shape[0] - rows < 16
    assert whole.shape[1] - columns < 16
    np.testing.assert_array_equal(whole[:rows, :columns], picture)
    assert (whole[rows:, :columns] == picture[-1]).all()


def test_a_file_that_is_no_network_is_one_sentence() -> None:
    with pytest.raises(DependencyError, match=r"^The network of x cannot be run by ONNX Runtime: .+\.$"):
        open_session(b"no network", "The network of x")
