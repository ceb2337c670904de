import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from numpy.typing import NDArray

from common.errors import ConfigError, DeviceError
from fl_client.webcam import stream
from fl_client.webcam.source import Kind
from fl_client.webcam.stream import PASSWORD, Address, StreamSource, is_stream, open_any, open_stream, parse_address

from .rtsp_camera import RtspCamera

SECRET = "s3cret"
HOME = Address(f"rtsp://me:{SECRET}@camera.local/live", "rtsp://camera.local/live")


def picture(level: int) -> NDArray[np.uint8]:
    return np.full((24, 32, 3), level, dtype=np.uint8)


@dataclass
class FakeCapture:
    """Gives these pictures, each once somebody `asks`, then no more; `opened` False: nobody answers."""

    levels: Sequence[int]
    opened: bool = True
    released: bool = False
    given: int = 0

    def isOpened(self) -> bool:
        return self.opened

    def read(self) -> tuple[bool, NDArray[np.uint8] | None]:
        if self.given >= len(self.levels):
            return False, None
        self.given += 1
        return True, picture(self.levels[self.given - 1])

    def get(self, what: int) -> float:
        return 15.0

    def release(self) -> None:
        self.released = True


@dataclass
class Camera:
    """Answers each opening with the next capture, then not at all."""

    captures: list[FakeCapture]
    urls: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def open(self, url: str) -> FakeCapture:
        self.urls.append(url)
        left = len(self.captures) - len(self.urls)
        return self.captures[-left - 1] if left >= 0 else FakeCapture([], opened=False)

    def source(self, pause: float = 0.01, patience: float = 60.0) -> StreamSource:
        return StreamSource(HOME, self.said.append, self.open, pause, patience)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("rtsp://camera.local/live", "rtsp://camera.local"),
        ("rtsp://cam:554/user=admin&password=s3cret", "rtsp://cam:554"),
        ("RTSP://me:s3cret@10.0.0.7:8554/a/b?token=s3cret", "rtsp://10.0.0.7:8554"),
        ("rtsps://me:s%40cret@[fe80::1]:322/x", "rtsps://[fe80::1]:322"),
    ],
)
def test_what_is_said_of_an_address_holds_no_user_password_or_token(text: str, name: str) -> None:
    address = parse_address(text)
    assert address.name == name
    assert address.url.lower() == text.lower()
    assert "cret" not in repr(address)


@pytest.mark.parametrize("text", ["rtsp://admin:12/34@cam/live", "rtsp://admin:12#34@cam", "rtsp://admin:12?34@cam/live"])
def test_a_password_that_is_not_percent_encoded_is_refused_without_being_said(text: str) -> None:
    with pytest.raises(ConfigError, match="percent-encoded") as raised:
        parse_address(text)
    assert "34" not in str(raised.value)


def test_a_password_from_the_environment_is_used_where_the_address_names_a_user_only() -> None:
    assert parse_address("rtsp://me@h:554/x?a=1", "p@ss/w:d").url == "rtsp://me:p%40ss%2Fw%3Ad@h:554/x?a=1"
    assert parse_address("rtsp://me:own@h/x", "other").url == "rtsp://me:own@h/x"
    assert parse_address("rtsp://h/x", "other").url == "rtsp://h/x"


@pytest.mark.parametrize(
    "text", ["rtsp://", "rtsp://me:s3cret@/x", "rtsp://h:99999/s3cret", "rtsp://a b:s3cret@h/", "rtsp://h/s3cret\n"]
)
def test_a_malformed_address_is_a_sentence_that_does_not_repeat_it(text: str) -> None:
    with pytest.raises(ConfigError, match=r"it looks like rtsp://camera\.local:554/path") as caught:
        parse_address(text)
    assert "s3cret" not in str(caught.value)


def test_only_network_cameras_are_streams() -> None:
    assert is_stream("rtsp://a/b")
    assert is_stream("RTSPS://a/b")
    for text in ("0", "holiday.mp4", "http://a/b", "udp://a", "/dev/video2", "rtsp"):
        assert not is_stream(text)
    with pytest.raises(DeviceError, match=r"http://"):
        open_any("http://a/b.mp4", print)


def test_the_newest_picture_wins_and_the_size_and_rate_are_the_streams() -> None:
    source = Camera([FakeCapture([10, 20, 30])]).source()
    assert (source.facts.kind, source.facts.size, source.facts.fps) == (Kind.CAMERA, (32, 24), 15.0)
    assert source.facts.name == "rtsp://camera.local/live"
    frames = source.frames()
    first = next(frames)
    assert (first.index, int(first.picture[0, 0, 0])) == (0, 10)
    second = next(frames)
    assert int(second.picture[0, 0, 0]) in (20, 30)
    assert second.taken is not None
    source.close()


def test_a_lost_stream_is_opened_again_and_meanwhile_the_frames_are_dark(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "BLANK_SECONDS", 0.01)
    back, tries, said = threading.Event(), [], []
    first, second = FakeCapture([10, 20]), FakeCapture([200] * 10_000)

    def answer(url: str) -> FakeCapture:
        tries.append(url)
        return first if len(tries) == 1 else second if back.is_set() else FakeCapture([], opened=False)

    source = StreamSource(HOME, said.append, answer, pause=0.01)
    levels = []
    for frame in source.frames():
        levels.append(int(np.median(frame.picture)))
        if levels.count(30) == 2:
            back.set()
        if levels[-1] == 200:
            break
    source.close()
    assert levels[0] == 10
    assert levels.count(30) >= 2
    assert said == ["The stream rtsp://camera.local/live was lost; trying again.", "The stream rtsp://camera.local/live is back."]
    assert first.released
    assert set(tries) == {HOME.url}


def test_a_stream_that_stays_away_ends_the_loop_with_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "BLANK_SECONDS", 0.01)
    camera = Camera([FakeCapture([10])])
    source = camera.source(pause=0.001, patience=0.05)
    with pytest.raises(DeviceError, match=r"The stream rtsp://camera\.local/live was lost and stayed away for 0\.05 seconds\."):
        list(source.frames())
    source.close()
    assert len(camera.urls) > 3
    assert set(camera.urls) == {HOME.url}


def test_the_pauses_between_tries_grow_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "LONGEST_PAUSE_SECONDS", 4.0)
    camera = Camera([FakeCapture([10])])
    source = camera.source(pause=1.0)
    pauses: list[float] = []

    class Stop:
        def is_set(self) -> bool:
            return False

        def wait(self, seconds: float) -> bool:
            pauses.append(seconds)
            return len(pauses) == 6

    monkeypatch.setattr(source, "_stop", Stop())
    assert not source._again()
    assert pauses == [1.0, 2.0, 4.0, 4.0, 4.0, 4.0]


@pytest.mark.parametrize("capture", [FakeCapture([], opened=False), FakeCapture([])])
def test_a_stream_that_does_not_open_is_a_sentence_without_the_password(capture: FakeCapture) -> None:
    with pytest.raises(DeviceError, match=f"rtsp://camera.local/live gives no picture .* in the variable {PASSWORD}") as caught:
        Camera([capture]).source()
    assert SECRET not in str(caught.value)
    assert capture.released


def test_the_command_opens_it_with_the_password_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def remember(url: str) -> FakeCapture:
        opened.append(url)
        return FakeCapture([1])

    monkeypatch.setenv(PASSWORD, SECRET)
    monkeypatch.setattr(StreamSource.__init__, "__defaults__", (remember, 1.0, 1.0))
    source = open_stream("rtsp://me@camera.local/live", print)
    source.close()
    assert opened == [HOME.url]


def test_closing_ends_the_thread_also_while_it_waits_for_the_stream() -> None:
    source = Camera([FakeCapture([10])]).source(pause=60.0)
    frames = source.frames()
    next(frames)
    source.close()
    assert not source._thread.is_alive()
    source.close()


@pytest.mark.network
def test_a_real_stream_is_played_with_its_password_and_again_after_it_was_lost() -> None:
    """Through OpenCV's FFmpeg, from a camera on loopback that hangs up after a second."""
    said: list[str] = []
    with RtspCamera(password=SECRET) as camera:
        source = StreamSource(parse_address(f"rtsp://me:{SECRET}@{camera.address}/live"), said.append, pause=0.1)
        assert (source.facts.name, source.facts.size) == (f"rtsp://{camera.address}", (64, 48))
        deadline = time.monotonic() + 30
        for frame in source.frames():
            level = float(np.median(frame.picture))
            if level > 100 or time.monotonic() > deadline:
                break
        source.close()
    assert level > 100
    assert camera.played >= 2
    assert [sentence.rpartition(" ")[2] for sentence in said[:2]] == ["again.", "back."]


@pytest.mark.network
def test_a_wrong_password_is_a_sentence_without_it() -> None:
    with RtspCamera() as camera, pytest.raises(DeviceError, match="its user and password") as caught:
        StreamSource(parse_address(f"rtsp://me:wr0ng@{camera.address}/live"), print)
    assert "wr0ng" not in str(caught.value)
    assert camera.played == 0
