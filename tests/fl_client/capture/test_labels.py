"""What becomes of a found face: never more than the owner or the rule says."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.emotions import EMOTIONS_8
from fl_client.capture.face import Fault
from fl_client.capture.import_form import thumbnail
from fl_client.capture.labels import Ask, Label, Leave, Origin, Rule, Take, decide, folder_label, parse_corrections

LABELS = st.builds(Label, st.sampled_from(EMOTIONS_8), st.sampled_from(Origin), st.floats(0, 1))
RULES = st.builds(Rule, st.none() | st.floats(0, 1), st.booleans())


@settings(max_examples=50, deadline=None)
@given(label=st.none() | LABELS, fault=st.sampled_from(Fault), alone=st.booleans(), rule=RULES)
def test_a_faulty_face_is_never_taken_nor_asked_about(label, fault, alone, rule):
    assert isinstance(decide(label, fault, alone, rule), Leave)


@settings(max_examples=50, deadline=None)
@given(label=LABELS, alone=st.booleans(), rule=RULES)
def test_unasked_a_face_is_taken_only_alone_under_its_own_label_and_above_the_bound(label, alone, rule):
    decision = decide(label, None, alone, rule)
    sure = rule.accept_above is not None and label.confidence >= rule.accept_above and alone
    assert isinstance(decision, Take) == sure
    if isinstance(decision, Take):
        assert decision.emotion == label.emotion
    assert (decision is Ask.OWNER) == (rule.asks and not sure)


@settings(max_examples=50, deadline=None)
@given(label=LABELS, low=st.floats(0, 1), high=st.floats(0, 1), alone=st.booleans())
def test_a_higher_bound_takes_no_more(label, low, high, alone):
    low, high = sorted((low, high))
    if isinstance(decide(label, None, alone, Rule(high, asks=False)), Take):
        assert isinstance(decide(label, None, alone, Rule(low, asks=False)), Take)


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.integers(1, 8), st.none() | st.sampled_from(EMOTIONS_8)), st.booleans())
def test_corrections_read_back_as_they_were_typed(corrections, by_number):
    def word(emotion):
        return "s" if emotion is None else str(EMOTIONS_8.index(emotion) + 1) if by_number else emotion.upper()

    text = ", ".join(f"{number} {word(emotion)}" for number, emotion in corrections.items())
    assert parse_corrections(text, 8) == corrections


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=40), st.integers(1, 8))
def test_whatever_is_typed_is_understood_within_the_page_or_refused_in_a_sentence(text, faces):
    found = parse_corrections(text, faces)
    if isinstance(found, str):
        assert found.endswith(".")
    else:
        assert all(1 <= number <= faces and emotion in (None, *EMOTIONS_8) for number, emotion in found.items())


def test_a_range_and_a_synonym_are_understood():
    assert parse_corrections("2-4 scared, 3 s", 4) == {2: "fear", 3: None, 4: "fear"}


def test_the_nearest_folder_of_an_emotion_is_the_label_but_none_above_what_was_given(tmp_path: Path):
    photo = tmp_path / "happy" / "old" / "sad" / "more" / "1.jpg"
    photo.parent.mkdir(parents=True)
    assert folder_label(photo, tmp_path) == Label("sadness", Origin.FOLDER)
    assert folder_label(tmp_path / "happy" / "old" / "2.jpg", tmp_path) == Label("happiness", Origin.FOLDER)
    assert folder_label(tmp_path / "happy" / "old" / "2.jpg", tmp_path / "happy" / "old") is None


@pytest.mark.parametrize("colours", [True, False])
def test_a_face_is_recognisable_on_any_terminal(colours: bool):
    dark_left = np.zeros((60, 60), dtype=np.uint8)
    dark_left[:, 30:] = 255
    lines = thumbnail(dark_left, colours).plain.split("\n")
    assert (len(lines), {len(line) for line in lines}) == (7, {14})
    if not colours:
        assert lines[3] == " " * 7 + "@" * 7
