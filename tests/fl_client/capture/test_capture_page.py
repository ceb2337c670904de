"""The capture page in a real browser: a session with its camera, and photos and a film that are confirmed.

It needs Chromium, whose camera shows patterns out of a file; a fake detector finds a face where they are.
"""

import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import cv2
import pytest

from fl_client.capture.album import Album
from fl_client.capture.booth import Booth
from fl_client.capture.browser_form import HOST
from fl_client.capture.forget import forget
from fl_client.capture.gate import Secrets
from tests.browser import Chromium, Tab, find_chromium

from .conftest import Served, desk_of, face, frame_of, serve

pytestmark = [
    pytest.mark.slow,
    pytest.mark.network,
    pytest.mark.skipif(find_chromium() is None, reason="There is no Chromium here."),
]

OFFERS = "document.querySelectorAll('#offers li').length"


@dataclass
class Opened:
    """A page in a browser, before anybody agreed."""

    tab: Tab
    booth: Booth
    served: Served

    @property
    def host(self) -> str:
        return self.served.host

    @property
    def counts(self) -> dict[str, int]:
        return {name: count for name, count in Album(self.booth.studio.album.folder).counts().items() if count}

    def text(self, name: str) -> str:
        return str(self.tab.run(f"document.getElementById('{name}').textContent"))

    def agree(self) -> None:
        self.tab.wait_for("document.getElementById('consent')?.hidden === false")
        self.tab.click("agree")
        self.tab.run("document.querySelector('#consent-form button').click()")
        self.tab.wait_for("document.getElementById('studio').hidden === false")

    def press(self, key: str) -> None:
        """On whatever has the focus."""
        self.tab.run(f"document.activeElement.dispatchEvent(new KeyboardEvent('keydown', {{ key: {key!r}, bubbles: true }}))")

    def start_camera(self) -> None:
        self.tab.click("start")
        self.tab.wait_for("!document.getElementById('take').disabled")

    def end_server(self) -> None:
        self.served.end()


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    camera = tmp_path_factory.mktemp("camera") / "patterns.mjpeg"
    camera.write_bytes(b"".join(cv2.imencode(".jpg", frame_of(seed))[1].tobytes() for seed in range(100, 130) for _ in range(10)))
    with Chromium(camera) as browser:
        yield browser


@pytest.fixture
def opened(chromium: Chromium, make_studio) -> Iterator[Opened]:  # type: ignore[no-untyped-def]
    studio, keys = make_studio({"happiness": 3, "fear": 2}, agreed=False), Secrets()
    booth = Booth(studio, keys, desk_of(studio))
    served = serve(booth)
    tab = chromium.tab()
    tab.size(1000, 900)
    tab.open(f"http://{served.host}/#{keys.new_token()}")
    shown = Opened(tab, booth, served)
    yield shown
    chromium.call("Target.closeTarget", {"targetId": tab.target})
    shown.end_server()


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    """Four photos, one of them broken, and a film with three looks."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed in range(3):
        cv2.imwrite(str(folder / f"{seed}.png"), frame_of(seed))
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff none")
    film = folder / "film.webm"
    writer = cv2.VideoWriter(str(film), cv2.VideoWriter.fourcc(*"VP80"), 10.0, (320, 240))
    for at in range(30):
        writer.write(frame_of(50 + at // 10))
    writer.release()
    return sorted(folder.iterdir())


def choose(opened: Opened, paths: list[Path]) -> None:
    for path in paths:
        opened.tab.choose_file("files", path)


def test_a_session_from_the_first_word_to_a_deleted_picture(opened: Opened) -> None:
    opened.agree()
    opened.press(" ")
    assert opened.tab.run("document.getElementById('video').srcObject") is None
    opened.start_camera()
    opened.press(" ")
    opened.tab.wait_for("document.querySelectorAll('#grid li').length === 3", 30)
    assert opened.counts == {"happiness": 3}
    opened.tab.wait_for("document.getElementById('prompt').textContent === 'Please look afraid'")
    opened.tab.run("document.querySelector('#grid li').focus()")
    opened.press("8")
    opened.tab.wait_for("[...document.querySelectorAll('#grid li')].some(({ dataset }) => dataset.name.startsWith('contempt'))")
    opened.tab.run("document.querySelector('#grid li').focus()")
    opened.press("Delete")
    opened.tab.wait_for("document.querySelectorAll('#grid li').length === 2")
    assert opened.counts == {"happiness": 1, "contempt": 1}
    opened.tab.click("done")
    opened.tab.wait_for("document.getElementById('place').textContent.startsWith('Finished')")
    assert opened.booth.done.is_set()
    assert {urlsplit(request["url"]).netloc for request in opened.tab.requests if "://" in request["url"]} <= {opened.host, ""}


def test_photos_and_a_film_are_confirmed_face_by_face(opened: Opened, photos: list[Path]) -> None:
    opened.agree()
    choose(opened, photos)
    opened.tab.wait_for(f"{OFFERS} === 6 && document.getElementById('import-said').textContent.startsWith('6 faces')", 30)
    assert "broken.jpg is left out: broken or cut short" in opened.text("left-out")
    assert opened.counts == {}
    words = opened.tab.run("[...document.querySelectorAll('#offers li')].map((item) => item.innerText)")
    assert all("the model: 60 %" in text for text in words)
    assert sum("film.webm at" in text for text in words) == 3
    opened.tab.wait_for("document.querySelector('#offers img').naturalWidth === 112")

    opened.tab.run("document.querySelector('#offers li').focus()")
    first = opened.tab.run("document.activeElement.dataset.name")
    opened.press("7")
    assert opened.tab.run("document.activeElement.querySelector('select').value") == "fear"
    opened.press("Enter")
    opened.tab.wait_for(f"{OFFERS} === 5")
    assert opened.counts == {"fear": 1}
    assert first == "0.png"
    stored = cv2.imread(str(opened.booth.studio.album.folder / "fear" / "00001.png"), cv2.IMREAD_GRAYSCALE)
    assert (stored == face(0)).all()
    opened.tab.wait_for("document.activeElement.parentElement.id === 'offers'")
    opened.press("Delete")
    opened.tab.wait_for(f"{OFFERS} === 4")
    opened.tab.click("done")
    opened.tab.wait_for("document.getElementById('problem').textContent.startsWith('4 faces from photos')")
    assert not opened.booth.done.is_set()
    opened.tab.click("store-all")
    opened.tab.wait_for(f"{OFFERS} === 0")
    assert opened.counts == {"fear": 1, "anger": 4}
    assert "5 stored" in opened.text("import-said")
    assert "1 you said no" in opened.text("import-said")
    opened.tab.wait_for("document.querySelectorAll('#grid li').length === 5")


def test_what_waits_is_still_there_when_the_page_is_loaded_anew(opened: Opened, photos: list[Path]) -> None:
    opened.agree()
    opened.tab.run("document.getElementById('all-show').value = 'sadness'")
    choose(opened, photos[:2])
    opened.tab.wait_for(f"{OFFERS} === 2", 30)
    opened.tab.run("window.old = true")
    opened.tab.call("Page.reload")
    opened.tab.wait_for(f"!window.old && document.getElementById('offers') && {OFFERS} === 2", 60)
    assert opened.tab.run("[...document.querySelectorAll('#offers select')].map(({ value }) => value)") == ["sadness"] * 2
    opened.tab.click("leave-all")
    opened.tab.wait_for(f"{OFFERS} === 0")
    assert opened.counts == {}


def test_once_the_program_has_ended_the_page_sends_nothing_to_whoever_takes_its_port(opened: Opened) -> None:
    opened.agree()
    opened.start_camera()
    opened.tab.wait_for("document.getElementById('hint').textContent !== '' || document.getElementById('marks').width === 320")
    opened.end_server()
    opened.tab.wait_for("document.getElementById('problem').textContent.includes('nothing more is sent')")
    assert opened.tab.run("sessionStorage.length") == 0
    assert opened.tab.run("document.getElementById('video').srcObject") is None
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind((HOST, int(opened.host.split(":")[1])))
        other.listen()
        other.settimeout(2)
        for name in ("start", "take", "undo", "done", "choose-files"):
            opened.tab.click(name)
        opened.press(" ")
        with pytest.raises(TimeoutError):
            other.accept()


def test_whoever_takes_the_port_at_once_and_answers_gets_no_second_frame(opened: Opened) -> None:
    opened.agree()
    opened.start_camera()
    asked: list[bytes] = []

    def answering(other: socket.socket) -> None:
        other.settimeout(3)
        with suppress(OSError):
            while True:
                line, _ = other.accept()
                with line, suppress(OSError):
                    line.settimeout(1)
                    asked.extend([head] if (head := line.recv(1 << 16)) else [])
                    line.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}")

    opened.end_server()
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind((HOST, int(opened.host.split(":")[1])))
        other.listen()
        answering(other)
    assert len(asked) <= 1
    opened.tab.wait_for("document.getElementById('problem').textContent.includes('nothing more is sent')")
    assert opened.tab.run("document.getElementById('video').srcObject") is None


def test_a_consent_that_is_taken_back_stops_the_camera_and_empties_the_page(opened: Opened, photos: list[Path]) -> None:
    opened.agree()
    choose(opened, photos[:2])
    opened.tab.wait_for(f"{OFFERS} === 2", 30)
    opened.start_camera()
    forget(opened.booth.studio.album.folder)
    opened.tab.wait_for("document.getElementById('consent').hidden === false")
    assert opened.tab.run("document.getElementById('video').srcObject") is None
    assert opened.tab.run(OFFERS) == 0
    assert opened.booth.desk.offers() == []
    opened.agree()
    opened.start_camera()


def test_a_refusal_from_before_a_new_consent_does_not_take_it_back(opened: Opened) -> None:
    opened.agree()
    opened.start_camera()
    opened.tab.run(
        "const send = window.fetch, gate = () => new Promise((go) => (window.pass = go)); window.stage = '';"
        "window.fetch = async (path, options) => {"
        " if (path !== '/api/frame' || window.stage) return send(path, options);"
        " window.stage = 'asked'; await gate();"
        " const answer = await send(path, options);"
        " window.stage = String(answer.status); await gate();"
        " return answer; }; null"
    )
    opened.tab.wait_for("window.stage === 'asked'")
    forget(opened.booth.studio.album.folder)
    opened.tab.run("window.pass()")
    opened.tab.wait_for("window.stage === '400'")
    opened.tab.click("undo")
    opened.agree()
    opened.tab.run("window.pass()")
    opened.start_camera()
    assert opened.tab.run("document.getElementById('problem').hidden") is True
    assert opened.tab.run("document.getElementById('consent').hidden") is True


def test_a_consent_that_is_taken_back_empties_a_page_whose_camera_is_off(opened: Opened, photos: list[Path]) -> None:
    opened.agree()
    choose(opened, photos[:2])
    opened.tab.wait_for(f"{OFFERS} === 2", 30)
    opened.tab.click("store-all")
    opened.tab.wait_for("document.querySelectorAll('#grid li').length === 2")
    forget(opened.booth.studio.album.folder)
    opened.tab.wait_for("document.getElementById('consent').hidden === false")
    assert opened.tab.run("document.querySelectorAll('#grid li').length") == 0
    assert opened.tab.run("document.getElementById('studio').hidden") is True


def test_two_clicks_on_start_open_one_camera(opened: Opened) -> None:
    opened.agree()
    opened.tab.run(
        "window.opened = []; const get = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);"
        "navigator.mediaDevices.getUserMedia = async (wish) => {"
        " const stream = await get(wish); window.opened.push(stream); return stream; }; null"
    )
    opened.tab.run("for (const _ of [1, 2, 3]) document.getElementById('start').click()")
    opened.tab.wait_for("!document.getElementById('take').disabled")
    opened.tab.click("stop")
    assert opened.tab.run("window.opened.map((stream) => stream.active)") == [False]


def test_the_warning_before_the_end_stays_while_the_camera_runs(opened: Opened, photos: list[Path]) -> None:
    opened.agree()
    opened.start_camera()
    opened.tab.run("document.getElementById('all-show').value = 'sadness'")
    choose(opened, photos[:1])
    opened.tab.run("document.getElementById('all-show').value = 'anger'")
    opened.tab.wait_for(f"{OFFERS} === 1", 30)
    assert opened.tab.run("document.querySelector('#offers select').value") == "sadness"
    opened.tab.click("done")
    frames = sum("/api/frame" in request["url"] for request in opened.tab.requests)
    while sum("/api/frame" in request["url"] for request in opened.tab.requests) < frames + 3:
        time.sleep(0.05)
    assert opened.text("problem").startswith("1 face from photos not decided on")
    choose(opened, photos[1:2])
    opened.tab.wait_for(f"{OFFERS} === 2", 30)
    opened.tab.click("done")
    assert opened.text("problem").startswith("2 faces")
    assert not opened.booth.done.is_set()
    reached = (
        "[...document.querySelectorAll('#offers *')].filter(({ tabIndex }) => tabIndex === 0)"
        ".map((part) => part.closest('li').dataset.name)"
    )
    assert set(opened.tab.run(reached)) == {"0.png"}
    opened.tab.run("document.querySelector('#offers li:last-child select').focus()")
    opened.press("7")
    assert opened.tab.run("document.activeElement.value") == "fear"
    assert set(opened.tab.run(reached)) == {"1.png"}
    opened.tab.click("done")
    opened.tab.wait_for("document.getElementById('place').textContent.startsWith('Finished')")
