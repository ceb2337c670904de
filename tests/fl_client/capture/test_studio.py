"""Frames in, pictures in the folder: what is stored is what the camera loop would classify, and only when it is worth it."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from common.emotions import EMOTIONS_8
from fl_client.capture import consent
from fl_client.capture.album import Album
from fl_client.capture.face import Fault, cut_out
from fl_client.capture.forget import forget
from fl_client.capture.pose import Distance, Pose, Turn, advice, pose_of
from fl_client.capture.review import Review
from fl_client.capture.studio import open_session
from models.detector.detection import Detection
from models.faces.folder import read_folder
from models.faces.inputs import model_inputs
from models.preprocess import Preprocessing

from .conftest import BOX, FixedDetector, agreed_album, face, frame_of


def stored(frame, box, preprocessing, folder):
    """The frame's face as training reads it, after it was stored."""
    agreed_album(folder).save("fear", cut_out(frame, Detection(box, 1.0), preprocessing.crop_margin).square)
    return read_folder(folder, preprocessing, EMOTIONS_8)[0].images


@settings(max_examples=40, deadline=None)
@given(
    x=st.integers(-40, 300), y=st.integers(-40, 220), side=st.integers(16, 200), wider=st.integers(0, 9),
    size=st.sampled_from((32, 48, 64)), margin=st.sampled_from((0.0, 0.1, 0.25)), seed=st.integers(0, 99),
)  # fmt: skip
def test_a_stored_face_reads_back_as_the_very_crop_of_the_loop(x, y, side, wider, size, margin, seed, tmp_path_factory):
    """Through the file and `models.faces.folder`, for every size of model, also at the frame's edge, bit by bit."""
    frame = np.random.default_rng(seed).integers(0, 256, (240, 320, 3), dtype=np.uint8)
    box = (x, y, side + wider, side)
    preprocessing = Preprocessing(size=size, crop_margin=margin)
    assume(min(x + side, 320 - x) > 2 and min(y + side, 240 - y) > 2)  # of a corner pixel alone a single colour is left
    images = stored(frame, box, preprocessing, tmp_path_factory.mktemp("parity") / "my_faces")
    np.testing.assert_array_equal(images[0], preprocessing.crop(frame, box))


@settings(max_examples=40, deadline=None)
@given(contrast=st.floats(0.05, 1.0), lift=st.integers(0, 120), seed=st.integers(0, 9))
def test_what_is_good_enough_to_store_is_the_models_input_itself_whatever_the_light(contrast, lift, seed, tmp_path_factory):
    frame = np.clip(frame_of(seed) * contrast + lift, 0, 255).astype(np.uint8)
    preprocessing = Preprocessing()
    assume(cut_out(frame, Detection(BOX, 1.0), 0.0).flaw is None)
    images = stored(frame, BOX, preprocessing, tmp_path_factory.mktemp("light") / "my_faces")
    np.testing.assert_array_equal(preprocessing.normalise(images), model_inputs(preprocessing, frame, [BOX]))


def test_a_burst_stores_different_faces_and_leaves_out_the_same_one(make_studio):
    studio = make_studio({"fear": 5}, gap=0.0)
    studio.begin("fear", 0.0)
    stored = [studio.see(frame_of(seed), 0.1).stored is not None for seed in (1, 1, 2, 1, 3)]
    assert stored == [True, False, True, False, True]
    assert studio.left_out == {Fault.SAME: 2}
    assert studio.session.count("fear") == 3


def test_what_is_stored_counts_as_seen_in_the_next_session_too(make_studio):
    studio = make_studio({"fear": 5}, gap=0.0)
    studio.begin("fear", 0.0)
    assert studio.see(frame_of(1), 0.0).stored
    again = make_studio({"fear": 5}, gap=0.0)
    again.begin("fear", 0.0)
    assert again.see(frame_of(1), 0.0).fault is Fault.SAME


def test_one_picture_is_not_stored_under_two_emotions(make_studio):
    """`models.faces.folder` would use neither."""
    studio = make_studio(gap=0.0)
    studio.begin("fear", 0.0)
    assert studio.see(frame_of(1), 0.0).stored
    studio.begin("happiness", 0.0)
    assert studio.see(frame_of(1), 0.0).fault is Fault.ELSEWHERE
    assert studio.see(frame_of(2), 0.0).stored


def test_nothing_is_stored_while_no_burst_runs(make_studio, faces):
    studio = make_studio()
    for seed in range(5):
        assert studio.see(frame_of(seed), float(seed)).stored is None
    assert not list(faces.rglob("*.png"))


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda f: cv2.resize(cv2.resize(f, (16, 12), interpolation=cv2.INTER_NEAREST), (320, 240)), Fault.BLURRED),
        (lambda f: f // 12, Fault.DARK),
        (lambda f: 255 - f // 12, Fault.BRIGHT),
        (lambda f: np.full_like(f, 100), Fault.FLAT),
    ],
)
def test_a_bad_picture_is_left_out_with_what_to_do(make_studio, change, fault):
    studio = make_studio()
    studio.begin("fear", 0.0)
    sight = studio.see(change(frame_of(1)), 0.0)
    assert (sight.stored, sight.fault) == (None, fault)
    assert ": " in sight.hint


def test_a_far_face_two_people_and_an_empty_room_are_left_out(make_studio):
    for boxes, fault in (((), Fault.NO_FACE), ((BOX, (10, 10, 72, 72)), Fault.SEVERAL), (((5, 5, 24, 24),), Fault.SMALL)):
        studio = make_studio(detector=FixedDetector(boxes))
        studio.begin("fear", 0.0)
        assert studio.see(frame_of(1, 2), 0.0).fault is fault


def test_a_small_face_in_the_background_does_not_stop_the_largest_one(make_studio):
    studio = make_studio(detector=FixedDetector(((5, 5, 50, 50), BOX)))
    studio.begin("fear", 0.0)
    sight = studio.see(frame_of(1), 0.0)
    assert sight.stored
    np.testing.assert_array_equal(sight.cut.square, face(1))


def test_after_forgetting_nothing_is_remembered_of_the_burst(make_studio, faces):
    studio = make_studio({"fear": 3}, gap=0.0)
    studio.begin("fear", 0.0)
    studio.see(frame_of(1), 0.0)
    forget(faces)
    with pytest.raises(consent.NotGiven):
        studio.see(frame_of(2), 0.1)
    assert studio.session.burst is None
    studio.album.open()
    consent.record(faces, "me")
    new = studio.album.save("fear", face(1))
    assert studio.undo() == 0
    assert new.path.exists()


def test_undo_takes_back_the_last_burst_and_nothing_else(make_studio):
    studio = make_studio({"fear": 2, "anger": 2}, gap=0.0)
    studio.begin("fear", 0.0)
    studio.see(frame_of(1), 0.0)
    studio.see(frame_of(2), 0.0)
    studio.begin("anger", 1.0)
    studio.see(frame_of(3), 1.0)
    assert studio.undo() == 1
    assert studio.undo() == 0
    counts = studio.album.counts()
    assert (counts["fear"], counts["anger"]) == (2, 0)
    assert studio.session.prompted == "anger"


def test_a_new_yes_does_not_let_a_session_go_on_with_what_it_saw_under_the_old_one(make_studio, faces):
    studio = make_studio({"fear": 3}, gap=0.0)
    studio.begin("fear", 0.0)
    studio.see(frame_of(1), 0.0)
    forget(faces)
    new = agreed_album(faces).save("fear", face(1))
    with pytest.raises(consent.NotGiven):
        studio.see(frame_of(2), 0.1)
    assert studio.session.burst is None
    assert studio.undo() == 0
    assert new.path.exists()


def test_undo_follows_what_was_relabelled_and_spares_what_has_its_name_now(make_studio):
    studio = make_studio({"fear": 3}, gap=0.0)
    album = studio.album
    studio.begin("fear", 0.0)
    first, second, third = (studio.see(frame_of(seed), 0.0).stored for seed in (1, 2, 3))
    album.relabel(second, "anger")
    album.delete(third)
    other = album.save("fear", face(9))
    assert other.path == second.path
    assert studio.undo() == 2
    assert album.pictures() == [other]
    assert studio.undo() == 0
    assert first not in album.pictures()


def test_undo_counts_only_what_was_still_there(make_studio):
    studio = make_studio({"fear": 3}, gap=0.0)
    studio.begin("fear", 0.0)
    stored = [studio.see(frame_of(seed), 0.0).stored for seed in (1, 2, 3)]
    review = Review(studio.album)
    for _ in stored:
        review.press("x")
    assert review.press("u") == "fear/00003.png is back."
    assert studio.undo() == 1
    assert studio.album.pictures() == []


def test_targets_are_remembered_and_counts_go_on(faces: Path):
    album = agreed_album(faces)
    session = open_session(album, ("fear", "anger"), 7)
    assert session.targets == (("anger", 7), ("fear", 7))
    album.save("fear", face(1))
    again = open_session(Album(faces), (), None)
    assert again.targets == session.targets
    assert again.count("fear") == 1


def test_damaged_targets_are_no_obstacle(faces: Path):
    album = agreed_album(faces)
    (faces / ".capture" / "session.json").write_text("{")
    assert len(open_session(album, (), None).targets) == 8
    assert json.loads((faces / ".capture" / "session.json").read_text())["targets"]["fear"] == 20


EYES = ((140.0, 100.0), (180.0, 100.0))


@pytest.mark.parametrize(("nose", "turn"), [(160.0, Turn.FRONT), (150.0, Turn.LEFT), (170.0, Turn.RIGHT)])
def test_the_nose_between_the_eyes_tells_where_a_head_is_turned(nose, turn):
    assert pose_of(Detection(BOX, 1.0, (*EYES, (nose, 120.0))), rows=240).turn is turn


@pytest.mark.parametrize(("side", "distance"), [(40, Distance.FAR), (80, Distance.MIDDLE), (200, Distance.NEAR)])
def test_a_faces_height_tells_its_distance(side, distance):
    assert pose_of(Detection((0, 0, side, side), 1.0), rows=240) == Pose(Turn.UNKNOWN, distance)


def test_advice_comes_only_when_pictures_are_alike_in_pose():
    front, left = Pose(Turn.FRONT, Distance.MIDDLE), Pose(Turn.LEFT, Distance.MIDDLE)
    unknown = Pose(Turn.UNKNOWN, Distance.MIDDLE)
    assert advice([front, front]) is None
    assert "one side" in (advice([front] * 3) or "")
    assert "straight" in (advice([left] * 3) or "")
    assert advice([front, front, left]) is None
    assert advice([unknown] * 5) is None
    assert "closer" in (advice([unknown] * 6) or "")
