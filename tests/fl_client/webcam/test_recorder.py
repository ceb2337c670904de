import csv
import os
import re
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from common.errors import ConfigError, DependencyError, DeviceError
from fl_client.webcam.recorder import Files, Outputs, open_recorders, open_recording
from fl_client.webcam.seen import Seen, faces_of
from fl_client.webcam.source import Facts, Frame, Kind

from .conftest import CLASSES, read_video

VIDEO = Facts(Kind.VIDEO, "a.mp4", (64, 48), 12.5)
CAMERA = Facts(Kind.CAMERA, "camera 0", (64, 48), 10.0)
IMAGE = Facts(Kind.IMAGE, "a.png", (64, 48), 1.0)


def seen(index: int, level: int = 100, size: tuple[int, int] = (64, 48), faces: int = 0, seconds: float = 0.0) -> Seen:
    canvas = np.full((size[1], size[0], 3), level, dtype=np.uint8)
    probabilities = np.full((faces, len(CLASSES)), 0.1, dtype=np.float32)
    probabilities[:, 3] = 0.4
    boxes = [(10 * number, 5, 20, 21) for number in range(faces)]
    return Seen(Frame(index, canvas, seconds, "a.mp4"), faces_of(boxes, probabilities, CLASSES), canvas, "run demo round 1 #1")


def record(out: Path | None, table: Path | None, facts: Facts, frames: list[Seen], error: BaseException | None = None) -> Outputs:
    outputs = Outputs(open_recorders(Files(out, table), facts, CLASSES), facts.kind.live)
    with outputs:
        for frame in frames:
            outputs.write(frame)
        if error is not None:
            raise error
    return outputs


@pytest.fixture
def _open_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def test_the_video_has_the_sources_size_rate_and_every_frame(tmp_path: Path) -> None:
    outputs = record(tmp_path / "out.mp4", None, VIDEO, [seen(number, 10 * number) for number in range(9)])
    frames, fps = read_video(tmp_path / "out.mp4")
    assert (len(frames), fps, frames[0].shape) == (9, 12.5, (48, 64, 3))
    np.testing.assert_allclose([frame.mean() for frame in frames], [10 * number for number in range(9)], atol=4)
    assert outputs.kept == [tmp_path / "out.mp4"]


def test_an_odd_side_grows_by_one_pixel(tmp_path: Path) -> None:
    record(tmp_path / "out.mp4", None, Facts(Kind.VIDEO, "a", (65, 49), 10.0), [seen(0, size=(65, 49))])
    frames, _ = read_video(tmp_path / "out.mp4")
    assert frames[0].shape == (50, 66, 3)
    np.testing.assert_allclose(frames[0], 100, atol=8)


def test_pictures_of_another_size_are_letterboxed_into_the_video(tmp_path: Path) -> None:
    record(tmp_path / "out.mp4", None, VIDEO, [seen(0), seen(1, 200, size=(640, 240))])
    frames, _ = read_video(tmp_path / "out.mp4")
    assert frames[1].shape == (48, 64, 3)
    assert frames[1][20:28].mean() > 190
    assert frames[1][:8].mean() < 15


def test_a_cameras_video_runs_as_fast_as_the_clock_did(tmp_path: Path) -> None:
    at = [0.0, 0.02, 0.5, 1.0]
    record(tmp_path / "out.mp4", None, CAMERA, [seen(n, 20 + 60 * n, seconds=s) for n, s in enumerate(at)])
    frames, fps = read_video(tmp_path / "out.mp4")
    assert fps == 10.0
    shown = [round((float(frame.mean()) - 20) / 60) for frame in frames]
    assert shown == [0] + [2] * 5 + [3] * 5


def test_a_long_pause_does_not_fill_the_disk(tmp_path: Path) -> None:
    record(tmp_path / "out.mp4", None, CAMERA, [seen(0), seen(1, seconds=100_000.0)])
    assert len(read_video(tmp_path / "out.mp4")[0]) == 1 + 100


@pytest.mark.usefixtures("_open_umask")
def test_every_output_is_for_its_owner_only(tmp_path: Path) -> None:
    record(tmp_path / "out.mp4", tmp_path / "out.csv", VIDEO, [seen(0)])
    record(tmp_path / "out.png", None, IMAGE, [seen(0)])
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {"out.mp4": 0o600, "out.csv": 0o600, "out.png": 0o600}


def test_the_table_has_a_line_per_face(tmp_path: Path) -> None:
    record(None, tmp_path / "out.csv", VIDEO, [seen(0, faces=2), seen(1), seen(2, faces=1, seconds=0.16)])
    with (tmp_path / "out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["frame"], row["seconds"], row["x"], row["y"], row["width"], row["height"]) for row in rows] == [
        ("0", "0.000", "0", "5", "20", "21"),
        ("0", "0.000", "10", "5", "20", "21"),
        ("2", "0.160", "0", "5", "20", "21"),
    ]
    first = rows[0]
    assert (first["label"], first["confidence"], first["model"], first["name"]) == (
        CLASSES[3],
        "0.400000",
        "run demo round 1 #1",
        "a.mp4",
    )
    assert [first[f"p_{name}"] for name in CLASSES] == ["0.400000" if at == 3 else "0.100000" for at in range(len(CLASSES))]


def test_without_pyarrow_a_parquet_table_is_refused_before_anything_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DependencyError, match=r"pip install 'emofl\[parquet\]', or use --csv"):
        Files(parquet=Path("out.parquet")).check()


def test_the_parquet_table_holds_what_the_csv_holds(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    frames = [seen(0, faces=2), seen(1), seen(2, faces=1, seconds=0.16)]
    files = Files(csv=tmp_path / "out.csv", parquet=tmp_path / "out.parquet")
    with Outputs(open_recorders(files, VIDEO, CLASSES), live=False) as outputs:
        for frame in frames:
            outputs.write(frame)
    table = parquet.read_table(tmp_path / "out.parquet").to_pylist()
    with (tmp_path / "out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [list(row) for row in table] == [list(row) for row in rows]
    assert [(row["frame"], row["x"], row["label"], row["face"]) for row in table] == [
        (0, 0, CLASSES[3], None),
        (0, 10, CLASSES[3], None),
        (2, 0, CLASSES[3], None),
    ]
    assert table[2]["seconds"] == pytest.approx(0.16)
    assert table[0][f"p_{CLASSES[3]}"] == pytest.approx(0.4)
    assert stat.S_IMODE((tmp_path / "out.parquet").stat().st_mode) == 0o600


def test_a_parquet_table_without_a_face_is_empty_and_whole(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    with Outputs(open_recorders(Files(parquet=tmp_path / "out.parquet"), VIDEO, CLASSES), live=False) as outputs:
        outputs.write(seen(0))
    assert parquet.read_table(tmp_path / "out.parquet").num_rows == 0


def test_a_recording_begins_and_ends_while_the_loop_runs(tmp_path: Path) -> None:
    outputs = Outputs([], live=True, begin=lambda: open_recording(tmp_path / "new", CAMERA, CLASSES))
    with outputs:
        outputs.write(seen(0, seconds=3.0))
        assert not outputs.writing
        outputs.start()
        assert outputs.recording
        assert outputs.writing
        for number, seconds in enumerate((5.0, 5.1, 5.2), start=1):
            outputs.write(seen(number, faces=1, seconds=seconds))
        video, table = outputs.stop()
        outputs.write(seen(4, faces=1, seconds=6.0))
        assert not outputs.writing
    assert re.fullmatch(r"emofl-\d{8}-\d{6}\.mp4", video.name)
    assert table == video.with_suffix(".csv")
    assert outputs.kept == [video, table]
    assert len(read_video(video)[0]) == 3
    assert [line.split(",")[0] for line in table.read_text().splitlines()[1:]] == ["1", "2", "3"]
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == sorted((video.name, table.name))
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700


def test_a_recording_that_goes_on_at_the_end_is_kept_and_an_error_leaves_nothing_of_it(tmp_path: Path) -> None:
    for error, files in ((None, 2), (ValueError("broken"), 0)):
        folder = tmp_path / str(files)
        outputs = Outputs([], live=False, begin=lambda folder=folder: open_recording(folder, VIDEO, CLASSES))
        outputs.start()
        outputs.write(seen(0))
        outputs.__exit__(type(error) if error else None, error, None)
        assert len(list(folder.iterdir())) == len(outputs.kept) == files


def test_two_recordings_of_one_second_do_not_share_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.strftime", lambda form: "20260131-120000")
    outputs = Outputs([], live=False, begin=lambda: open_recording(tmp_path, VIDEO, CLASSES))
    for _ in range(2):
        outputs.start()
        outputs.write(seen(0))
        outputs.stop()
    assert [path.name for path in outputs.kept if path.suffix == ".mp4"] == [
        "emofl-20260131-120000.mp4",
        "emofl-20260131-120000-2.mp4",
    ]


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_a_picture_becomes_a_picture(tmp_path: Path, suffix: str) -> None:
    record(tmp_path / f"out{suffix}", None, IMAGE, [seen(0)])
    picture = cv2.imread(str(tmp_path / f"out{suffix}"))
    assert picture is not None
    np.testing.assert_allclose(picture, 100, atol=2)


@pytest.mark.parametrize("facts", [VIDEO, IMAGE])
def test_an_error_leaves_nothing_and_the_older_file_as_it_was(tmp_path: Path, facts: Facts) -> None:
    (tmp_path / "out.mp4").write_bytes(b"older")
    with pytest.raises(DeviceError, match="gone"):
        record(tmp_path / "out.mp4", tmp_path / "out.csv", facts, [seen(0, faces=1)], DeviceError("gone"))
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]
    assert (tmp_path / "out.mp4").read_bytes() == b"older"


@pytest.mark.parametrize(
    ("facts", "error"), [(VIDEO, KeyboardInterrupt()), (CAMERA, KeyboardInterrupt()), (CAMERA, DeviceError("gone"))]
)
def test_what_cannot_be_had_again_is_kept_and_named(tmp_path: Path, facts: Facts, error: BaseException) -> None:
    outputs = Outputs(open_recorders(Files(tmp_path / "out.mp4", tmp_path / "out.csv"), facts, CLASSES), facts.kind.live)
    outputs.write(seen(0, faces=1))
    outputs.__exit__(type(error), error, None)
    assert outputs.kept == [tmp_path / "out.mp4", tmp_path / "out.csv"]
    assert len(read_video(tmp_path / "out.mp4")[0]) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.csv", "out.mp4"]


def test_a_video_without_a_frame_is_not_left_behind(tmp_path: Path) -> None:
    outputs = record(tmp_path / "out.mp4", None, VIDEO, [])
    assert outputs.kept == []
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_a_sentence_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Lossy:
        fourcc = staticmethod(cv2.VideoWriter.fourcc)

        def __init__(self, *_: object) -> None: ...

        def isOpened(self) -> bool:
            return True

        def write(self, picture: object) -> None: ...

        def release(self) -> None: ...

    monkeypatch.setattr(cv2, "VideoWriter", Lossy)
    with pytest.raises(DeviceError, match="could not be written whole; is there room on its disk"):
        record(tmp_path / "out.mp4", None, VIDEO, [seen(0)])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        (Files(Path("out.avi")), "must end in .mp4"),
        (Files(Path("out")), "must end in .mp4"),
        (Files(csv=Path("out.txt")), r"must end in \.csv"),
        (Files(parquet=Path("out.csv")), r"must end in \.parquet"),
    ],
)
def test_an_unknown_ending_is_refused(files: Files, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        files.check()


def test_outputs_that_cannot_be_are_refused_with_nothing_left(tmp_path: Path) -> None:
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "a.mp4").write_bytes(b"the source")
    (tmp_path / "same.mp4").symlink_to(tmp_path / "a.mp4")
    reading = Facts(Kind.VIDEO, "a.mp4", (64, 48), 10.0, files=(tmp_path / "a.mp4",))
    before = sorted(tmp_path.iterdir())
    for out, facts, error, sentence in [
        (tmp_path / "out.png", VIDEO, ConfigError, "is a picture, and a video has many frames: use .mp4"),
        (tmp_path / "a.mp4", reading, ConfigError, "is what is being read"),
        (tmp_path / "same.mp4", reading, ConfigError, "is what is being read"),
        (tmp_path / "folder.mp4", VIDEO, DeviceError, "is a folder; give the name of a file"),
        (tmp_path / "nowhere" / "out.mp4", VIDEO, DeviceError, "cannot be created: No such file or directory"),
        (tmp_path / "out.mp4", Facts(Kind.VIDEO, "a", (9000, 16), 10.0), DeviceError, "cannot write a 9000x16 .mp4"),
    ]:
        with pytest.raises(error, match=sentence):
            open_recorders(Files(out), facts, CLASSES)
        assert sorted(tmp_path.iterdir()) == before
    with pytest.raises(DeviceError, match="cannot be created"):
        open_recorders(Files(tmp_path / "out.mp4", tmp_path / "nowhere" / "out.csv"), VIDEO, CLASSES)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("option", ["output", "parquet"])
@pytest.mark.parametrize("name", [b"\xff", b"\xff/a"])
def test_a_name_that_native_libraries_do_not_take_is_refused_and_nothing_left(option: str, name: bytes, tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(name + (b".mp4" if option == "output" else b".parquet"))
    path.parent.mkdir(exist_ok=True)
    with pytest.raises(DeviceError, match=r"The name of .*\ufffd.* is not valid UTF-8, .*: use another name"):
        open_recorders(Files(**{option: path}), VIDEO, CLASSES)
    assert not list(path.parent.glob("*.*"))


def test_a_folder_of_such_a_name_is_looked_at_even_where_it_is_not_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / os.fsdecode(b"\xff")
    folder.mkdir()
    monkeypatch.chdir(folder)
    with pytest.raises(DeviceError, match="is not valid UTF-8"):
        Files(Path("out.mp4")).check()
    with pytest.raises(DeviceError, match="is not valid UTF-8"):
        open_recording(Path(), CAMERA, CLASSES)
    assert list(folder.iterdir()) == []


def test_a_picture_and_a_csv_table_may_have_any_name(tmp_path: Path) -> None:
    picture, table = (tmp_path / os.fsdecode(b"\xff" + suffix) for suffix in (b".png", b".csv"))
    assert record(picture, table, IMAGE, [seen(0, faces=1)]).kept == [picture, table]
