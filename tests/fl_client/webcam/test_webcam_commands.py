import csv
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from common.emotions import EMOTIONS_7, EMOTIONS_8
from fl_client import cli, webcam_commands
from fl_client.webcam import base_model
from fl_client.webcam.classifier import Classifier
from fl_client.webcam.marks import RED
from fl_client.webcam.registry import RegistrySource
from fl_client.webcam.window import QUIT
from models.class_counts import FER2013, as_metrics
from models.detector import detectors
from models.manifest import PrivacyStatement
from models.prior import prior_correct
from simulation.synthetic_scene import write_scene_video
from tests.publishing import OTHER_KEY

from .conftest import BRIGHT, DARK, FakeDetector, FakeSource, Kind, brightness_onnx, frame_with, publish, read_video, write_video

LEFT, RIGHT = (20, 60, 80, 80), (180, 60, 80, 80)
PICTURE = frame_with([(LEFT, 255), (RIGHT, 0)])

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def video(tmp_path: Path) -> Path:
    return write_video(tmp_path / "in.mp4", [PICTURE] * 6, fps=12.5)


@pytest.fixture
def finder(monkeypatch: pytest.MonkeyPatch) -> FakeDetector:
    """What `--detector fake` uses."""
    fake = FakeDetector((LEFT, RIGHT))
    monkeypatch.setitem(detectors.DETECTORS, "fake", lambda size: fake)
    return fake


@pytest.fixture
def webcam(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], finder: FakeDetector) -> Command:
    """Runs `fl-client webcam ...`: exit code, stdout, stderr."""

    def run(*options: Any) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["fl-client", "webcam", "--detector", "fake", *map(str, options)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    return run


def test_a_video_becomes_an_annotated_video_and_a_table(webcam: Command, video: Path, registry: Path, tmp_path: Path) -> None:
    out, table = tmp_path / "out.mp4", tmp_path / "out.csv"
    code, printed, messages = webcam("--source", video, "--registry", registry, "--headless", "--output", out, "--csv", table)
    assert code == 0
    assert printed.startswith("6 frames; 12 faces; ")
    assert f"Written: {out}\nWritten: {table}\n" in printed
    assert messages.startswith("Model: run demo round 1 #1, signed by ")
    assert "epsilon is at most 7.9" in messages
    frames, fps = read_video(out)
    assert (len(frames), fps, frames[0].shape) == (6, 12.5, PICTURE.shape)
    assert np.abs(frames[0].astype(int) - PICTURE).max() > 100
    with table.open(newline="") as file:
        labels = [(row["frame"], row["label"]) for row in csv.DictReader(file)]
    assert labels == [(str(frame), label) for frame in range(6) for label in (BRIGHT, DARK)]


def test_drawn_people_go_all_the_way_from_video_to_labels(webcam: Command, registry: Path, tmp_path: Path) -> None:
    """With the real detector: what the table says first of a face is what the model says of the box it names."""
    write_scene_video(tmp_path / "scene.mp4", 4, seed=1, people=2)
    code, _, _ = webcam(
        "--detector", "haar", "--source", tmp_path / "scene.mp4", "--registry", registry, "--headless",
        "--output", tmp_path / "out.mp4", "--csv", tmp_path / "out.csv", "--mirror", "--min-confidence", 0,
    )  # fmt: skip
    assert code == 0
    pictures, _ = read_video(tmp_path / "scene.mp4")
    assert [picture.shape for picture in read_video(tmp_path / "out.mp4")[0]] == [picture.shape for picture in pictures]
    classifier = Classifier(RegistrySource(registry).newest())
    with (tmp_path / "out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["face"] for row in rows] == ["1", "2"] * 4
    for row in rows[:2]:
        x, y, width, height = (int(row[name]) for name in ("x", "y", "width", "height"))
        expected = classifier.probabilities(pictures[int(row["frame"])], [(x, y, width, height)])[0]
        got = [float(row[f"p_{name}"]) for name in classifier.model.classes]
        np.testing.assert_allclose(got, expected, atol=1e-5)
        assert row["label"] == classifier.model.classes[int(expected.argmax())]


def test_nothing_is_written_unless_asked(webcam: Command, video: Path, registry: Path, tmp_path: Path) -> None:
    before = {path for path in tmp_path.rglob("*") if "state" not in path.parts}
    code, printed, _ = webcam("--source", video, "--registry", registry, "--headless", "--frames", 2)
    assert code == 0
    assert printed.startswith("2 frames; 4 faces; ")
    assert {path for path in tmp_path.rglob("*") if "state" not in path.parts} == before


def test_a_model_without_privacy_is_announced_as_such(webcam: Command, video: Path, tmp_path: Path) -> None:
    publish(tmp_path / "registry", 1, privacy=PrivacyStatement.absent("All training."))
    _, _, messages = webcam("--source", video, "--registry", tmp_path / "registry", "--headless", "--frames", 1)
    assert "warning: NOT PRIVATE: " in messages


def test_one_version_can_be_named_and_is_not_followed(webcam: Command, video: Path, registry: Path) -> None:
    publish(registry, 2)
    _, _, messages = webcam("--source", video, "--model", registry / "versions" / "000001-r0001", "--headless")
    assert messages.startswith("Model: run demo round 1 #1, signed by ")


def test_a_picture_becomes_an_annotated_picture(webcam: Command, registry: Path, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "in.png"), PICTURE)
    code, printed, _ = webcam(
        "--source", tmp_path / "in.png", "--registry", registry, "--headless", "--output", tmp_path / "out.png"
    )
    assert code == 0
    assert printed.startswith("1 frame; 2 faces; ")
    drawn = cv2.imread(str(tmp_path / "out.png"))
    assert drawn is not None
    assert drawn.shape == PICTURE.shape
    assert (drawn != PICTURE).any()


def test_a_picture_of_any_name_is_read_and_what_is_written_of_any_name_is_told(
    webcam: Command, registry: Path, tmp_path: Path
) -> None:
    cv2.imwrite(str(tmp_path / "in.png"), PICTURE)
    odd = (tmp_path / "in.png").rename(tmp_path / os.fsdecode(b"\xe9.png"))
    table = tmp_path / os.fsdecode(b"\xff.csv")
    code, printed, _ = webcam("--source", odd, "--registry", registry, "--headless", "--csv", table)
    assert code == 0
    assert f"Written: {tmp_path}/\ufffd.csv\n" in printed
    assert ",\ufffd.png," in table.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("options", "code", "sentence"),
    [
        (["--source", "nowhere.mp4", "--registry", "REGISTRY", "--headless"], 7, "The source nowhere.mp4 does not exist"),
        (["--source", "http://a/b", "--registry", "REGISTRY", "--headless"], 7, "Network streams (http://) cannot be used"),
        (["--source", "rtsp://me:secret@/b", "--headless"], 2, "The stream's address is malformed"),
        (["--source", "VIDEO", "--model", "VIDEO", "--registry", "REGISTRY", "--headless"], 2, "Give one of --registry FOLDER"),
        (["--source", "VIDEO", "--quotes-from", "nowhere.txt", "--headless"], 2, "The quotes nowhere.txt cannot be read"),
        (["--source", "VIDEO", "--registry", "REGISTRY", "--headless", "--parquet", "a.csv"], 2, "must end in .parquet"),
        (["--source", "VIDEO", "--headless", "--trust", "ab"], 2, "the base model comes with emofl itself"),
        (["--source", "VIDEO", "--headless", "--output", os.fsdecode(b"\xff.mp4")], 7, "\ufffd.mp4 is not valid UTF-8"),
        (["--source", "9" * 21, "--registry", "REGISTRY", "--headless"], 2, "A camera's index has at most 9 digits"),
        (["--source", "VIDEO", "--registry", "REGISTRY"], 7, "There is no display here; use --headless --output"),
        (["--source", "VIDEO", "--registry", "nowhere", "--headless"], 2, "The folder nowhere does not exist"),
        (["--source", "VIDEO", "--registry", "EMPTY", "--headless"], 5, "Nothing is published in"),
        (["--source", "VIDEO", "--registry", "REGISTRY", "--headless", "--output", "a.gif"], 2, "must end in .mp4"),
        (["--source", "VIDEO", "--registry", "REGISTRY", "--headless", "--output", "a.png"], 2, "a video has many frames"),
        (["--source", "VIDEO", "--registry", "REGISTRY", "--headless", "--output", "VIDEO"], 2, "is what is being read"),
        (["--source", "VIDEO", "--registry", "REGISTRY", "--headless", "--detector", "hare"], 2, "no detector called 'hare'"),
        (
            ["--source", "VIDEO", "--registry", "REGISTRY", "--trust", OTHER_KEY.public.fingerprint, "--headless"],
            5,
            "not to the one you trust",
        ),
    ],
)
def test_what_cannot_be_done_is_one_sentence_and_its_exit_code(
    options: list[str],
    code: int,
    sentence: str,
    webcam: Command,
    video: Path,
    registry: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    before = sorted(tmp_path.iterdir())
    stands_for = {"VIDEO": str(video), "REGISTRY": str(registry), "EMPTY": str(tmp_path / "empty")}
    got, _, messages = webcam(*(stands_for.get(option, option) for option in options))
    last = messages.strip().splitlines()[-1]
    assert (got, last.startswith("error: "), sentence in last) == (code, True, True), messages
    assert "Traceback" not in messages
    assert [path for path in sorted(tmp_path.iterdir()) if path.name != "state"] == before


def test_a_camera_without_window_or_end_is_refused(webcam: Command, registry: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webcam_commands, "open_any", lambda text, warn: FakeSource([PICTURE], Kind.CAMERA))
    code, _, messages = webcam("--registry", registry, "--headless")
    assert code == 2
    assert "would show nothing and never end: add --output, --csv, --record or --frames" in messages
    assert webcam("--registry", registry, "--headless", "--frames", 1)[0] == 0


@pytest.mark.parametrize("live", [False, True])
def test_ctrl_c_keeps_and_names_what_was_written(
    live: bool, webcam: Command, finder: FakeDetector, registry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(frame: int) -> None:
        if frame == 3:
            raise KeyboardInterrupt

    finder.before = interrupt
    source = FakeSource([PICTURE] * 6, Kind.CAMERA if live else Kind.VIDEO, fps=10.0)
    monkeypatch.setattr(webcam_commands, "open_any", lambda text, warn: source)
    code, printed, messages = webcam("--registry", registry, "--headless", "--output", tmp_path / "out.mp4")
    assert code == (0 if live else 130)
    assert printed.startswith("3 frames; ")
    assert f"Written: {tmp_path / 'out.mp4'}" in printed
    assert len(read_video(tmp_path / "out.mp4")[0]) == 3
    assert "Traceback" not in messages


def test_the_screen_names_a_newer_model_once_it_is_taken_over(
    webcam: Command, registry: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the real watcher thread: published while the loop runs, drawn on a later frame, which ends the loop."""

    class Window:
        def __init__(self) -> None:
            self.shown: list[Any] = []
            self.deadline = time.monotonic() + 30

        def show(self, canvas: Any) -> None:
            self.shown.append(canvas[:60, :200])
            if len(self.shown) == 2:
                publish(registry, 2)

        def key(self, wait: float | None = 0.0) -> str:
            time.sleep(0.01)
            changed = (self.shown[-1] != self.shown[0]).any()
            return QUIT if changed or time.monotonic() > self.deadline else ""

        def close(self) -> None: ...

    source = FakeSource([PICTURE] * 100_000, Kind.CAMERA)
    monkeypatch.setattr(webcam_commands, "open_any", lambda text, warn: source)
    monkeypatch.setattr(webcam_commands, "open_window", lambda title: Window())
    code, printed, messages = webcam("--registry", registry)
    assert code == 0
    assert "1 newer model taken over" in printed
    assert "Now run demo round 2 #2: record-level epsilon 7.9." in messages


def test_libraries_noise_never_reaches_the_person(video: Path, registry: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"no video" * 100)
    program = "from fl_client.cli import main; main()"
    broken = str(tmp_path / "broken.mp4")
    options = ["webcam", "--source", broken, "--registry", str(registry), "--detector", "haar", "--headless"]
    done = subprocess.run([sys.executable, "-c", program, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 7
    lines = done.stderr.splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("Model: ")
    assert lines[2].startswith("error: The file ")


def test_the_loop_needs_neither_torch_nor_flower() -> None:
    program = (
        "import sys, fl_client.webcam_commands\n"
        "from fl_client.webcam import registry\n"
        "import fl_client.personal_source\n"
        "assert 'onnx' not in sys.modules\n"
        "import models.graft\n"
        "sys.exit(bool({'torch', 'flwr', 'matplotlib'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_without_a_registry_the_base_model_labels(webcam: Command, video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base_model, "_exported", lambda base, config: brightness_onnx(len(config.classes)))
    code, printed, messages = webcam("--source", video, "--headless", "--frames", 2)
    assert code == 0
    assert printed.startswith("2 frames; 4 faces; ")
    assert "Model: base model 20" in messages
    assert "warning: NOT PRIVATE: " in messages


def table_of(path: Path) -> np.ndarray:
    with path.open(newline="") as file:
        return np.array([[float(value) for name, value in row.items() if name.startswith("p_")] for row in csv.DictReader(file)])


def test_answers_are_evened_by_the_share_that_is_asked_for_and_the_person_is_told(webcam: Command, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "in.png"), PICTURE)
    publish(tmp_path / "registry", 1, metrics=as_metrics(FER2013))
    wish = ["--source", tmp_path / "in.png", "--registry", tmp_path / "registry", "--headless", "--csv", tmp_path / "out.csv"]
    code, _, messages = webcam(*wish)
    assert (code, "evened" in messages) == (0, False)
    plain = table_of(tmp_path / "out.csv")
    (tmp_path / "out.csv").unlink()
    code, _, messages = webcam(*wish, "--even-classes", 0.5)
    assert (code, messages.count("Answers are evened")) == (0, 1)
    counts = np.array([FER2013[name] for name in EMOTIONS_7])
    np.testing.assert_allclose(table_of(tmp_path / "out.csv"), prior_correct(plain, counts**0.5, np.ones(7)), atol=1e-3)


def test_a_model_without_class_counts_is_not_evened(webcam: Command, video: Path, registry: Path) -> None:
    code, printed, messages = webcam("--source", video, "--registry", registry, "--headless", "--frames", 1, "--even-classes", 1)
    assert (code, printed) == (2, "")
    assert messages.count("error:") == 1
    assert "or leave --even-classes out." in messages


@pytest.mark.parametrize("other", [["--serve"], ["--personal", "faces"]])
def test_neither_a_page_nor_an_own_head_is_evened(webcam: Command, other: list[str]) -> None:
    code, _, messages = webcam("--even-classes", 0.5, *other)
    assert code == 2
    assert "leave out --serve and --personal" in messages
    assert webcam("--even-classes", 1.5)[0] == 2


def test_the_base_model_knows_its_public_counts(webcam: Command, video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base_model, "_exported", lambda base, config: brightness_onnx(len(config.classes)))
    code, _, messages = webcam("--source", video, "--headless", "--frames", 2, "--even-classes", 1)
    assert (code, "Answers are evened" in messages) == (0, True)


def test_the_benchmark_is_a_table_of_milliseconds(webcam: Command, video: Path, registry: Path) -> None:
    _, printed, _ = webcam("--source", video, "--registry", registry, "--headless", "--frames", 3, "--benchmark")
    for step in ("detect", "classify", "draw", "whole frame", "p95 ms"):
        assert step in printed
    _, printed, _ = webcam("--source", video, "--registry", registry, "--headless", "--frames", 3)
    assert "p95 ms" not in printed


def test_record_writes_video_and_table_from_the_first_frame(webcam: Command, video: Path, registry: Path, tmp_path: Path) -> None:
    folder = tmp_path / "album"
    code, printed, _ = webcam("--source", video, "--registry", registry, "--headless", "--record", "--snapshots", folder)
    assert code == 0
    table, film = sorted(folder.iterdir())
    assert (table.suffix, film.suffix) == (".csv", ".mp4")
    assert len(read_video(film)[0]) == 6
    assert len(table.read_text().splitlines()) == 1 + 12
    assert f"Written: {film}" in printed


class Keys:
    """A window whose person presses one key after each frame, and whose pauses end at once."""

    def __init__(self, *keys: str) -> None:
        self.keys = list(keys)
        self.shown: list[Any] = []

    def show(self, canvas: Any) -> None:
        self.shown.append(canvas.copy())

    def key(self, wait: float | None = 0.0) -> str:
        return self.keys.pop(0) if self.keys else QUIT

    def close(self) -> None: ...


def test_the_keys_reach_recording_snapshot_and_view(
    webcam: Command, registry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    window = Keys("", "r", "", "s", "", "m", "", " ", "", " ", "", "r", "", QUIT)
    monkeypatch.setattr(webcam_commands, "open_any", lambda text, warn: FakeSource([PICTURE] * 100, Kind.CAMERA, fps=10.0))
    monkeypatch.setattr(webcam_commands, "open_window", lambda title: window)
    code, _, messages = webcam("--registry", registry, "--snapshots", tmp_path / "album", "--mirror")
    assert code == 0
    assert [path.suffix for path in sorted((tmp_path / "album").iterdir())] in (
        [".csv", ".mp4", ".png"],
        [".csv", ".png", ".mp4"],
        [".png", ".csv", ".mp4"],
    )
    assert "Saved emofl-" in messages
    assert "Recorded emofl-" in messages
    reds = [int((canvas == np.array(RED, dtype=np.uint8)).all(axis=2).sum()) > 500 for canvas in window.shown]
    assert not reds[0]
    assert any(reds)
    assert not reds[-1]


def test_the_registry_that_a_window_showed_is_the_one_used_next_time(
    webcam: Command, registry: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webcam_commands, "open_any", lambda text, warn: FakeSource([PICTURE] * 9, Kind.CAMERA))
    monkeypatch.setattr(webcam_commands, "open_window", lambda title: Keys(QUIT))
    assert webcam("--registry", registry)[0] == 0
    code, _, messages = webcam()
    assert code == 0
    assert messages.startswith(
        f"The registry used last: {registry} (--model base for the base model).\nModel: run demo round 1 #1"
    )


def test_no_password_of_a_stream_is_ever_printed(webcam: Command, registry: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against a real port that nobody listens on."""
    code, printed, messages = webcam(
        "--source", "rtsp://me:hunter2@127.0.0.1:9/x?k=hunter2", "--registry", registry, "--headless"
    )
    assert code == 7
    assert "The stream rtsp://127.0.0.1:9 gives no picture" in messages
    assert "hunter2" not in printed + messages


def test_what_is_more_often_wrong_than_right_is_unsure_unless_asked_otherwise(
    webcam: Command, tmp_path: Path, registry: Path, finder: FakeDetector
) -> None:
    """A grey face tells the model nothing: eight classes share the probability."""
    cv2.imwrite(str(tmp_path / "grey.png"), frame_with([(LEFT, 128)]))
    finder.boxes = (LEFT,)
    said = []
    for options in ((), ("--min-confidence", 0)):
        table = tmp_path / "out.csv"
        assert webcam("--source", tmp_path / "grey.png", "--registry", registry, "--headless", "--csv", table, *options)[0] == 0
        said.append(table.read_text().splitlines()[1].split(",")[10 - 1])
    assert said[0] == "unsure"
    assert said[1] in EMOTIONS_8
