"""`fl-client capture` as a person types it: headless, imports, forgetting; with a fake detector and sources from memory."""

import io
import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from common.errors import ModelError
from fl_client import capture_commands, cli
from fl_client.capture import consent, importing
from fl_client.capture.album import Album
from fl_client.capture.forget import forget
from fl_client.capture.terminal_form import TerminalForm
from fl_client.capture.window_form import WindowForm
from fl_client.webcam.classifier import Classifier
from fl_client.webcam.source import Kind
from fl_client.webcam.window import QUIT
from models.detector import detectors
from models.faces.folder import CONSENT

from .conftest import BOX, FixedDetector, Patterns, agreed_album, face, frame_of

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def finder(monkeypatch: pytest.MonkeyPatch) -> FixedDetector:
    fixed = FixedDetector()
    monkeypatch.setitem(detectors.DETECTORS, "fixed", lambda size: fixed)
    return fixed


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> Patterns:
    """What every --source opens; its clock is everybody's."""
    patterns = Patterns()
    monkeypatch.setattr(capture_commands, "open_source", lambda text, warn: patterns)
    for form in (TerminalForm, WindowForm):
        monkeypatch.setattr(capture_commands, form.__name__, partial(form, now=lambda: patterns.clock))
    return patterns


@pytest.fixture
def capture(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], finder: FixedDetector, source: Patterns, faces: Path
) -> Command:
    """Runs `fl-client capture --data FACES ...` while somebody types `typed` (None: with stdin closed): exit code, out, err."""

    def run(*options: Any, typed: str | None = "") -> tuple[int, str, str]:
        words = ["fl-client", "capture", "--data", faces, "--detector", "fixed", *options]
        monkeypatch.setattr(sys, "argv", [str(word) for word in words])
        monkeypatch.setattr(sys, "stdin", None if typed is None else io.StringIO(typed))
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    return run


HEADLESS = ("--headless", "--countdown", 0)


def counts(faces: Path) -> dict[str, int]:
    return {name: count for name, count in Album(faces).counts().items() if count}


def test_without_a_yes_nothing_is_captured(capture: Command, faces: Path) -> None:
    for typed in ("", "me\n", "me\nno\n", None):
        code, out, err = capture(*HEADLESS, typed=typed)
        assert code == 2
        assert "What leaves the device" in out
        assert "Nothing was captured" in err
    assert not list(faces.rglob("*.png"))
    assert not (faces / CONSENT).exists()


def test_the_text_is_shown_once_and_the_answer_written_down(capture: Command, faces: Path) -> None:
    code, out, _ = capture(*HEADLESS, typed="me and Ada\nyes\nq\n")
    assert (code, "What cannot be undone" in out) == (0, True)
    (written,) = consent.given(faces)
    assert (written.people, written.text_version) == ("me and Ada", consent.TEXT_VERSION)
    assert written.date.utcoffset().total_seconds() == 0
    code, out, _ = capture(*HEADLESS, typed="q\n")
    assert "What cannot be undone" not in out


def test_a_changed_text_is_shown_again_and_the_old_answer_kept(faces: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Album(faces)
    consent.record(faces, "me")
    assert consent.is_given(faces)
    monkeypatch.setattr(consent, "TEXT", consent.TEXT + " More.")
    assert not consent.is_given(faces)
    consent.record(faces, "me")
    assert consent.is_given(faces)
    assert len(consent.given(faces)) == 2


def test_prompts_are_followed_until_every_target_is_reached(capture: Command, faces: Path) -> None:
    code, out, _ = capture(*HEADLESS, "--emotion", "happy", "--emotion", "fear", "--count", 6, "--agree", typed="\n" * 4)
    assert code == 0
    assert "please look happy" in out
    assert "All targets are reached." in out
    assert counts(faces) == {"happiness": 6, "fear": 6}


def test_a_session_goes_on_where_the_last_one_was_left(capture: Command, faces: Path) -> None:
    capture(*HEADLESS, "--emotion", "fear", "--count", 8, "--agree", typed="\nq\n")
    assert counts(faces) == {"fear": 5}
    code, out, _ = capture(*HEADLESS, typed="\n")
    assert "5 of 8" in out
    assert (code, counts(faces)) == (0, {"fear": 8})


def test_a_source_that_ends_in_a_burst_loses_nothing(capture: Command, faces: Path, source: Patterns) -> None:
    source.frames_left = 3
    code, out, _ = capture(*HEADLESS, "--emotion", "fear", "--agree", typed="\n\n")
    assert (code, "The source has ended." in out) == (0, True)
    assert counts(faces) == {"fear": 3}


def test_typed_words_take_skip_undo_and_refuse(capture: Command, faces: Path) -> None:
    typed = "7\nu\ns\nnonsense\n\nq\n"
    code, out, _ = capture(*HEADLESS, "--agree", "--burst", 2, typed=typed)
    assert code == 0
    assert "Deleted 2 pictures." in out
    assert "'nonsense' means nothing here." in out
    assert sum(counts(faces).values()) == 2


def test_hands_free_needs_no_key_and_gives_up_where_no_picture_is_good(
    capture: Command, faces: Path, finder: FixedDetector
) -> None:
    hands_free = (*HEADLESS, "--hands-free", "--agree", "--emotion", "fear")
    assert capture(*hands_free, "--count", 7)[0] == 0
    assert counts(faces) == {"fear": 7}
    finder.boxes = ()
    code, out, _ = capture(*hands_free, "--count", 9)
    assert (code, counts(faces)) == (0, {"fear": 7})
    assert "no face in view" in out
    assert "No picture was good enough: stopped." in out


class FakeWindow:
    """Presses the keys, one per frame, and keeps what it was shown."""

    def __init__(self, *keys: str) -> None:
        self.keys, self.shown = list(keys), []

    def show(self, canvas: np.ndarray) -> None:
        self.shown.append(canvas)

    def key(self, wait: float | None = 0.0) -> str:
        return self.keys.pop(0) if self.keys else QUIT

    def close(self) -> None: ...


def test_the_window_form_takes_by_key_reviews_deletes_and_quits(
    capture: Command, faces: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    window = FakeWindow("7", "", "", "", "", "", "", "r", "d", "x", "2", QUIT, " ", "", "n", "", QUIT)
    monkeypatch.setattr(capture_commands, "open_window", lambda title: window)
    code, out, _ = capture("--agree", "--burst", 4)
    assert code == 0
    assert counts(faces)["fear"] == 2
    assert counts(faces)["happiness"] == 1
    assert counts(faces)["contempt"] >= 1
    assert {canvas.shape[2] for canvas in window.shown} == {3}
    assert "fl-client data check" in out


def test_a_videos_pace_is_kept_and_its_end_ends_the_session(
    capture: Command, source: Patterns, monkeypatch: pytest.MonkeyPatch
) -> None:
    source.frames_left = 2
    source.facts = replace(source.facts, kind=Kind.VIDEO)
    window = FakeWindow("", "", "", "", "")
    monkeypatch.setattr(capture_commands, "open_window", lambda title: window)
    assert capture("--agree")[0] == 0
    assert len(window.shown) == 2


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three photos that name their emotion, one that does not, one broken, one without use."""
    folder = tmp_path / "photos"
    for seed, name in enumerate(("happy/a.jpg", "happy/b.png", "scared/c.png", "d.png")):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(frame_of(seed)).save(path, quality=95)
    (folder / "e.jpg").write_text("broken")
    (folder / "notes.txt").write_text("none")
    return folder


@pytest.fixture(autouse=True)
def proposing_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of the base model: says anger with 60 %, of every face."""

    class Says:
        def __init__(self, model: Any, threads: int = 1) -> None:
            from tests.fl_client.webcam.conftest import loop_model

            self.model = loop_model()

        def probabilities(self, picture: np.ndarray, boxes: list[Any]) -> np.ndarray:
            row = np.full(len(self.model.classes), 0.4 / (len(self.model.classes) - 1), np.float32)
            row[self.model.classes.index("anger")] = 0.6
            return np.stack([row] * len(boxes))

    monkeypatch.setattr(capture_commands, "Classifier", Says)
    monkeypatch.setattr(capture_commands.BaseSource, "newest", lambda self: None)


def test_imported_photos_take_the_label_of_their_folder_the_model_or_the_owner(
    capture: Command, faces: Path, photos: Path
) -> None:
    code, out, err = capture("--import", photos, "--agree", typed="2 s, 3 disgusted\n")
    assert code == 0
    assert "e.jpg is left out: broken or cut short." in err
    assert "anger 60%" in out
    assert "happiness, says its folder" in out
    assert "3 stored" in out
    assert "you said no 1" in out
    assert counts(faces) == {"anger": 1, "disgust": 1, "fear": 1}
    assert photos.joinpath("happy", "a.jpg").exists()


def test_without_a_model_an_import_goes_on_without_proposals(
    capture: Command, faces: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(self: object) -> None:
        raise ModelError("The base model is not here.")

    monkeypatch.setattr(capture_commands.BaseSource, "newest", missing)
    code, out, err = capture("--import", photos, "--agree", typed="\n")
    assert (code, counts(faces)) == (0, {"happiness": 2, "fear": 1})
    assert err.count("No labels are proposed: The base model is not here.") == 1
    assert "? (say which)" in out


def test_the_same_import_again_stores_and_asks_nothing_new(capture: Command, faces: Path, photos: Path) -> None:
    capture("--import", photos, "--agree", typed="\n")
    before = counts(faces)
    code, out, _ = capture("--import", photos, typed="")
    assert (code, counts(faces)) == (0, before)
    assert "as before 4" in out


def test_without_asking_only_sure_faces_that_are_alone_are_stored(
    capture: Command, faces: Path, photos: Path, finder: FixedDetector
) -> None:
    code, out, _ = capture("--import", photos, "--agree", "--accept-above", 0.9)
    assert (code, counts(faces)) == (0, {"happiness": 2, "fear": 1})
    assert "the label is not sure enough 1" in out
    finder.boxes = (BOX, (10, 10, 90, 90))
    _, out, _ = capture("--import", photos / "d.png", "--accept-above", 0.5)
    assert counts(faces) == {"happiness": 2, "fear": 1}
    assert "other people in the picture" in out


def test_quitting_an_import_keeps_what_was_stored(capture: Command, faces: Path, tmp_path: Path) -> None:
    for seed in range(20):
        (tmp_path / "many").mkdir(exist_ok=True)
        Image.fromarray(frame_of(seed)).save(tmp_path / "many" / f"{seed:02d}.png")
    code, out, _ = capture("--import", tmp_path / "many", "--label", "sad", "--agree", typed="\nwhat\nq\n")
    assert (code, counts(faces)) == (0, {"sadness": 8})
    assert "'what' is not understood" in out
    assert "what was stored stays" in out


def test_a_film_gives_each_look_once(capture: Command, faces: Path, tmp_path: Path) -> None:
    film = tmp_path / "film.mp4"
    writer = cv2.VideoWriter(str(film), cv2.VideoWriter.fourcc(*"mp4v"), 10.0, (320, 240))
    for at in range(30):
        writer.write(frame_of(at // 10))
    writer.release()
    code, out, _ = capture("--import", film, "--label", "sad", "--accept-above", 0, "--every", 0.5, "--agree")
    assert (code, counts(faces)) == (0, {"sadness": 3})
    assert "3 faces of films nearly the same as one before" in out


def test_a_film_whose_name_opencv_does_not_take_is_left_out_and_a_photo_of_such_a_name_is_not(
    capture: Command, faces: Path, tmp_path: Path
) -> None:
    odd = tmp_path / os.fsdecode(b"odd\xff")
    odd.mkdir()
    (odd / os.fsdecode(b"\xe9.mp4")).write_bytes(b"a film")
    Image.fromarray(frame_of(90)).save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(odd / os.fsdecode(b"\xe9.png"))
    code, _, err = capture("--import", odd, "--label", "sad", "--accept-above", 0, "--agree")
    assert (code, counts(faces)) == (0, {"sadness": 1})
    assert "\ufffd.mp4 is left out: The name of" in err
    assert "is not valid UTF-8" in err


def test_pictures_that_cannot_be_read_are_named_and_a_long_import_says_how_far_it_is(
    capture: Command, faces: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.heic", "b.HEIC"):
        (photos / name).write_bytes(b"none")
    monkeypatch.setattr(importing, "SAID_EVERY", 2)
    _, out, err = capture("--import", photos, "--agree", typed="\n")
    assert "a.heic and 1 more cannot be read here: convert to JPEG first." in err
    assert "2 of 5 files looked at." in err
    assert "fl-client data check" in out


def test_an_import_of_nothing_is_one_sentence(capture: Command, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.heic").write_text("")
    for path, said in (("absent", "There is no"), ("empty", "holds no photo and no film"), ("a.heic", "HEIC to JPEG")):
        code, out, err = capture("--import", tmp_path / path, "--label", "sad", "--agree")
        assert code == 3
        assert said in err
        assert out == ""


def test_an_import_of_nothing_is_refused_before_a_model_is_made_ready_or_anybody_asked(
    capture: Command, faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    monkeypatch.setattr(capture_commands, "BaseSource", lambda **_: made.append("the base model"))
    code, out, err = capture("--import", tmp_path / "absent", typed="me\nyes\n")
    assert (code, out, made) == (3, "", [])
    assert "There is no" in err
    assert not (faces / CONSENT).exists()


def test_forgetting_asks_for_the_name_and_leaves_the_ledger_and_what_is_not_ours(capture: Command, faces: Path) -> None:
    capture(*HEADLESS, "--agree", "--emotion", "fear", "--count", 2, typed="\n")
    (faces / ".emofl").mkdir()
    (faces / ".emofl" / "ledger.jsonl").write_text("spent")
    (faces / "fear" / "notes.txt").write_text("mine")
    (faces / "happy").symlink_to(faces.parent)
    (faces.parent / "outside.png").write_text("stays")
    for typed in ("", "no\n", None):
        code, _, err = capture("--forget", typed=typed)
        assert (code, "Nothing was deleted" in err) == (2, True)
    code, out, _ = capture("--forget", typed="my_faces\n")
    assert code == 0
    assert "Deleted: 2 pictures" in out
    assert "What was spent stays spent" in out
    assert "still there: fear." in out
    assert sorted(path.name for path in faces.rglob("*")) == [".emofl", "fear", "ledger.jsonl", "notes.txt"]
    assert (faces.parent / "outside.png").exists()


def test_forgetting_everything_removes_the_folder_too(capture: Command, faces: Path) -> None:
    capture(*HEADLESS, "--agree", "--emotion", "fear", "--count", 2, typed="\n")
    assert capture("--forget", "--yes")[0] == 0
    assert not faces.exists()


@pytest.mark.parametrize("form", ["--headless", "--window"])
@pytest.mark.parametrize("anew", [False, True])
def test_forgetting_on_another_terminal_ends_a_session_in_one_sentence_also_if_somebody_agrees_anew(
    capture: Command, faces: Path, source: Patterns, monkeypatch: pytest.MonkeyPatch, anew: bool, form: str
) -> None:
    frames = source.frames

    def forgotten_after_four() -> Any:
        for frame in frames():
            if frame.index == 4:
                forget(faces)
                if anew:
                    agreed_album(faces)
            yield frame

    monkeypatch.setattr(source, "frames", forgotten_after_four)
    monkeypatch.setattr(capture_commands, "_window", lambda: FakeWindow(" ", *[""] * 9))
    options = (*HEADLESS, "--emotion", "fear", "--count", 9) if form == "--headless" else ("--emotion", "fear")
    code, _, err = capture("--agree", *options, typed="\n" * 9)
    assert (code, "--forget takes a yes back" in err) == (2, True)
    assert not list(faces.rglob("*.png"))


@pytest.fixture
def new_yes_at_the_question(faces: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def enter_after_a_new_yes(line: str) -> str:
        forget(faces)
        agreed_album(faces)
        return ""

    monkeypatch.setattr(capture_commands, "_ask", enter_after_a_new_yes)


def test_faces_that_an_import_asks_about_are_not_stored_under_a_yes_given_meanwhile(
    capture: Command, faces: Path, photos: Path, new_yes_at_the_question: None
) -> None:
    agreed_album(faces)
    code, out, err = capture("--import", photos)
    assert (code, "--forget takes a yes back" in err) == (2, True)
    assert "0 stored" in out
    assert not list(faces.rglob("*.png"))


def test_a_first_yes_in_the_same_command_is_the_one_that_has_to_stand(
    capture: Command, faces: Path, photos: Path, new_yes_at_the_question: None
) -> None:
    assert capture("--import", photos, "--agree")[0] == 2
    assert not list(faces.rglob("*.png"))


def test_forgetting_touches_no_folder_that_holds_no_faces(capture: Command, faces: Path) -> None:
    assert capture("--forget", "--yes")[0] == 3
    faces.mkdir()
    (faces / "thesis.png").write_text("")
    code, _, err = capture("--forget", "--yes")
    assert (code, "Nothing was deleted" in err) == (3, True)
    assert (faces / "thesis.png").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--headless", "--browser"), "Choose one of"),
        (("--browser", "--import", "photos"), "chosen in the page"),
        (("--hands-free",), "--hands-free goes with --headless"),
        (("--browser", "--label", "fear"), "'They show' labels what is chosen next"),
        (("--browser", "--accept-above", "0"), "--label and --accept-above go with --import"),
        (("--headless", "--label", "fear"), "--label and --accept-above go with --import"),
        (("--emotion", "bored"), "There is no emotion 'bored'"),
    ],
)
def test_options_that_make_no_sense_are_one_sentence(capture: Command, faces: Path, options: tuple[str, ...], said: str) -> None:
    code, _, err = capture(*options)
    assert (code, said in err) == (2, True)
    assert not faces.exists()


def test_without_a_display_the_other_forms_are_named(capture: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    code, _, err = capture("--agree")
    assert (code, "use --browser or --headless." in err, "--output" in err) == (7, True, False)


def test_a_damaged_record_of_consent_is_one_sentence(capture: Command, faces: Path) -> None:
    agreed_album(faces).save("fear", face(1))
    (faces / CONSENT).write_text(json.dumps({"consents": "yes"}))
    code, _, err = capture(*HEADLESS)
    assert (code, "is no record of consent" in err) == (3, True)


def test_the_real_classifier_is_not_needed_to_start(capture: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture_commands, "Classifier", Classifier)
    assert capture(*HEADLESS, "--agree", typed="q\n")[0] == 0
