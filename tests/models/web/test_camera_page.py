"""The camera page in a real browser: what it shows, that pictures stay in it, and that it runs nothing unsigned.

It needs Chromium, whose camera shows drawn people out of a file. Every request is recorded by the browser and by the server.
"""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from common.config import ModelConfig
from common.emotions import EMOTIONS_8
from fl_client.webcam.serving import LocalPage, VerifiedFiles, make_app
from fl_server.hub import Registry
from models.faces.inputs import model_inputs
from models.faces.light import relit
from models.manifest import MANIFEST, ONNX, Manifest, PrivacyStatement
from models.preprocess import Preprocessing
from models.web.detection import shipped_detection
from models.web.site import HEADERS, CameraSite, File
from simulation.synthetic_scene import render_scene
from tests.browser import Chromium, Tab, find_chromium
from tests.publishing import KEY, OTHER_KEY, facts_of_round, weights_of_round
from tests.tiny_model import tiny_onnx

pytestmark = [
    pytest.mark.slow,
    pytest.mark.network,
    pytest.mark.skipif(find_chromium() is None, reason="There is no Chromium here."),
]

READY = "globalThis.emofl?.state.model != null"
SEES = "emofl.speed.frames.length > 2"
PATHS = ("/camera", "/models/", "/style.css", "/favicon.svg")


NOTES_WHAT_WORKERS_ARE_TOLD = """(() => {
  globalThis.told = [];
  const post = Worker.prototype.postMessage;
  Worker.prototype.postMessage = function (message, ...more) {
    told.push(message.kind);
    return post.call(this, message, ...more);
  };
})()"""


HOLDS_ANSWERS = """(() => {
  Object.assign(globalThis, { workers: [], held: [], hold: false, spoil: "", shift: 0 });
  const noted = (worker) => {
    if (!workers.some((one) => one.worker === worker)) workers.push({ worker, posted: 0, answered: 0 });
    return workers.find((one) => one.worker === worker);
  };
  const { set } = Object.getOwnPropertyDescriptor(Worker.prototype, "onmessage");
  Object.defineProperty(Worker.prototype, "onmessage", { set(hear) {
    set.call(this, (event) => {
      if (event.data.kind === "faces") {
        noted(this).answered += 1;
        if (this === workers[0].worker) event.data.faces.forEach((face) => (face.id += shift));
        if (hold) return void held.push(() => hear(event));
      }
      hear(event);
    });
  } });
  const post = Worker.prototype.postMessage;
  Worker.prototype.postMessage = function (message, ...more) {
    const one = noted(this);
    if (message.kind === "frame") one.posted += 1;
    if (message.kind !== spoil) return post.call(this, message, ...more);
    if (spoil === "frame") spoil = "";
    return post.call(this, { ...message, classes: [], picture: {} });
  };
})()"""
BARE = """(() => {
  const overlay = document.getElementById("overlay");
  return overlay.getContext("2d").getImageData(0, 0, overlay.width, overlay.height).data.every((value) => value === 0);
})()"""


@dataclass
class Recorder:
    """Notes what is asked, before the application sees it; answers that it is busy as often as it is told to."""

    app: ASGIApp
    asked: list[tuple[str, str, bytes, int]] = field(default_factory=list)
    busy: dict[str, int] = field(default_factory=dict)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            length = sum(int(value) for name, value in scope["headers"] if name == b"content-length")
            size = sum(len(name) + len(value) for name, value in scope["headers"])
            self.asked.append((scope["method"], scope["path"], scope["query_string"], length))
            assert size < 4000
            if self.busy.get(scope["path"], 0):
                self.busy[scope["path"]] -= 1
                return await Response(status_code=503, headers={"retry-after": "1", **HEADERS})(scope, receive, send)
        await self.app(scope, receive, send)


@dataclass
class Place:
    """A registry, and the page that shows its newest model."""

    registry: Path
    files: VerifiedFiles
    recorder: Recorder
    page: LocalPage
    said: list[str]

    def find_faces(self) -> None:
        """By the detector that is shipped; without it the page asks for a face in the middle."""
        self.recorder.app = make_app(self.files, CameraSite(server=False, detection=shipped_detection()))

    def publish(self, seed: int, **changes: object) -> None:
        Registry(self.registry, KEY).publish(weights_of_round(seed), tiny_onnx(seed), facts_of_round(seed, **changes))


@pytest.fixture(scope="module")
def camera(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("camera") / "people.mjpeg"
    frames = render_scene(12, seed=3, people=2, size=(240, 320))
    path.write_bytes(b"".join(cv2.imencode(".jpg", frame.picture)[1].tobytes() for frame in frames))
    return path


@pytest.fixture(scope="module")
def chromium(camera: Path) -> Iterator[Chromium]:
    with Chromium(camera) as browser:
        yield browser


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    registry, said = tmp_path / "registry", list[str]()
    Registry(registry, KEY).publish(weights_of_round(1), tiny_onnx(1), facts_of_round(1))
    files = VerifiedFiles(registry, KEY.public, said.append)
    recorder = Recorder(make_app(files, CameraSite(server=False)))
    page = LocalPage(recorder, 0)
    page.start()
    yield Place(registry, files, recorder, page, said)
    page.stop()


@pytest.fixture
def tab(chromium: Chromium, place: Place) -> Iterator[Tab]:
    page = chromium.tab()
    page.size(1000, 800)
    yield page
    chromium.call("Target.closeTarget", {"targetId": page.target})


def text(tab: Tab, name: str) -> str:
    return str(tab.run(f"document.getElementById('{name}').textContent"))


def test_no_request_of_the_page_carries_a_picture_and_all_are_for_known_files(place: Place, tab: Tab, tmp_path: Path) -> None:
    picture = tmp_path / "face.png"
    cv2.imwrite(str(picture), next(render_scene(1, seed=5, people=1, size=(240, 320))).picture)
    tab.open(place.page.address)
    tab.wait_for(READY)
    tab.click("start")
    tab.wait_for(SEES)
    for key in ("heatmap", "mirror", "pause", "pause"):
        tab.click(key)
    place.publish(2)
    tab.wait_for("emofl.state.model.version === '000002-r0002'")
    tab.wait_for(SEES)
    tab.choose_file("upload", picture)
    tab.wait_for("emofl.state.view.live === false && emofl.state.faces.length > 0")

    own = urlsplit(place.page.address)
    assert len(tab.requests) > 20
    for request in tab.requests:
        address = urlsplit(request["url"])
        assert request["method"] == "GET"
        assert not request["body"]
        assert (address.scheme, address.netloc) == ("http", own.netloc)
        assert address.path.startswith(PATHS)
        assert len(request["url"]) < 120
        assert address.query == ""
    assert {method for method, *_ in place.recorder.asked} == {"GET"}
    assert all((query, length) == (b"", 0) for _, _, query, length in place.recorder.asked)
    seen, known = {path for _, path, *_ in place.recorder.asked}, {urlsplit(one["url"]).path for one in tab.requests}
    assert seen <= known | {"/favicon.svg"}
    assert tab.run("document.cookie + Object.keys(sessionStorage)") == ""
    assert tab.run("Object.keys(localStorage).every((name) => name.startsWith('emofl-'))")
    assert tab.run("indexedDB.databases().then((found) => found.length)") == 0
    assert tab.run("caches.keys().then((found) => found.length)") == 0


def test_the_browser_stops_whatever_would_carry_a_picture_elsewhere(place: Place, tab: Tab) -> None:
    heard = list[str]()

    async def listener(scope: Scope, receive: Receive, send: Send) -> None:
        heard.append(str(scope.get("path")))

    elsewhere = LocalPage(listener, 0)
    elsewhere.start()
    try:
        tab.open(place.page.address)
        tab.wait_for(READY)
        other = elsewhere.address.removesuffix("/camera")
        tab.run(f"""(async () => {{
          const other = {json.dumps(other)};
          const failed = [];
          await fetch(other + "/fetch", {{ method: "POST", body: "x", mode: "no-cors" }}).catch(() => failed.push("fetch"));
          try {{ navigator.sendBeacon(other + "/beacon", "x"); }} catch {{ failed.push("beacon"); }}
          new Image().src = other + "/image?x";
          try {{ new WebSocket(other.replace("http", "ws")); }} catch {{ failed.push("socket"); }}
          const script = document.createElement("script");
          script.src = other + "/script";
          document.head.append(script);
          const form = document.createElement("form");
          form.method = "post";
          form.action = other + "/form";
          document.body.append(form);
          form.submit();
          try {{ new Function("1")(); failed.push("EVAL WORKS"); }} catch {{ failed.push("eval"); }}
          globalThis.failed = failed;
        }})()""")
        assert {"fetch", "eval"} <= set(tab.run("failed"))
        assert "EVAL WORKS" not in tab.run("failed")
        time.sleep(0.5)
        assert heard == []
        assert tab.run("crossOriginIsolated")
    finally:
        elsewhere.stop()


@pytest.mark.parametrize("dim", [False, True])
def test_a_crop_gets_the_probabilities_that_python_gives_it(place: Place, tab: Tab, tmp_path: Path, dim: bool) -> None:
    import onnxruntime

    picture = np.random.default_rng(4).integers(0, 256, (70, 70, 3), dtype=np.uint8)
    picture = cv2.normalize(cv2.GaussianBlur(picture, (0, 0), 3), None, 0, 60 if dim else 255, cv2.NORM_MINMAX)
    cv2.imwrite(str(tmp_path / "crop.png"), picture)
    tab.open(place.page.address)
    tab.wait_for(READY)
    tab.click("whole")
    tab.choose_file("upload", tmp_path / "crop.png")
    tab.wait_for("emofl.state.faces.length === 1")
    got = tab.run("emofl.state.faces[0].steady.probabilities")
    prepare = Preprocessing()
    session = onnxruntime.InferenceSession(tiny_onnx(1), providers=["CPUExecutionProvider"])
    face = prepare.whole(picture)
    assert (relit(face) is not face) == dim
    logits = session.run(["logits"], {"faces": model_inputs(prepare, picture, [(0, 0, 70, 70)])})[0][0]
    wanted = np.exp(logits - logits.max())
    np.testing.assert_allclose(got, wanted / wanted.sum(), atol=1e-6)


def test_a_newer_model_takes_over_between_two_frames(place: Place, tab: Tab) -> None:
    tab.open(place.page.address)
    tab.wait_for(READY)
    tab.click("start")
    tab.wait_for(SEES)
    tab.run("""(() => {
      globalThis.gaps = []; let last = performance.now();
      let before = emofl.speed.frames.at(-1);
      const look = () => {
        const now = emofl.speed.frames.at(-1);
        if (now !== before) { gaps.push(performance.now() - last); last = performance.now(); before = now; }
        requestAnimationFrame(look);
      };
      look();
    })()""")
    place.publish(7)
    tab.wait_for("emofl.state.model.version === '000002-r0007'")
    tab.wait_for("document.getElementById('version').textContent.includes('round 7')")
    assert "is verified and in use" in text(tab, "status") or "Face 1" in text(tab, "status")
    assert tab.run("gaps.length") > 2
    assert tab.run("document.getElementById('trouble').hidden")


def test_faces_keep_their_numbers_over_a_newer_model_and_every_frame_is_answered(place: Place, tab: Tab) -> None:
    tab.before(HOLDS_ANSWERS)
    tab.open(place.page.address)
    tab.wait_for(READY)
    tab.run("shift = 100")
    tab.click("start")
    tab.wait_for(SEES)
    place.publish(7)
    tab.wait_for("emofl.state.model.version === '000002-r0007' && workers[1].answered > 3")
    assert tab.run("emofl.state.faces.map(({ id }) => id)") == [101]
    posted, answered = tab.run("[workers[0].posted, workers[0].answered]")
    assert posted == answered > 2


def test_a_newer_model_with_other_classes_begins_its_labels_anew(place: Place, tab: Tab, monkeypatch: pytest.MonkeyPatch) -> None:
    tab.open(place.page.address)
    tab.wait_for(READY)
    tab.click("start")
    tab.wait_for(SEES)
    monkeypatch.setattr("tests.tiny_model.CLASSES", 8)
    place.publish(7, model=ModelConfig(classes=EMOTIONS_8))
    tab.wait_for("emofl.state.model.version === '000002-r0007' && emofl.state.faces.length > 0")
    assert tab.run("emofl.state.model.classes") == list(EMOTIONS_8)
    probabilities = tab.run("emofl.state.faces[0].steady.probabilities.map(String)")
    assert len(probabilities) == 8
    assert sum(map(float, probabilities)) == pytest.approx(1)
    assert tab.run("document.getElementById('trouble').hidden")


def test_a_model_that_does_not_load_is_tried_again_later_and_is_not_called_missing(place: Place, tab: Tab) -> None:
    tab.before(HOLDS_ANSWERS + ";" + NOTES_HINTS + '; spoil = "load"')
    tab.open(place.page.address)
    tab.wait_for("document.getElementById('trouble')?.hidden === false")
    assert "The model cannot run here: its output does not fit its manifest" in text(tab, "trouble")
    place.recorder.asked.clear()
    tab.wait_for(
        "performance.now() > 0 && performance.getEntriesByType('resource').filter(({name}) => name.includes('latest')).length > 2"
    )
    assert not [hint for hint in tab.run("hints") if "Nothing is published" in hint]
    assert text(tab, "hint") == "No model is in use."
    assert not [path for _, path, *_ in place.recorder.asked if path.endswith("model.onnx")], (
        "it was loaded again within the minute"
    )
    tab.run("spoil = ''; emofl.models.refused.until = 0")
    tab.wait_for(READY)
    assert tab.run("document.getElementById('trouble').hidden")


def test_nothing_is_shown_or_said_of_a_camera_that_was_stopped(place: Place, tab: Tab) -> None:
    tab.before(HOLDS_ANSWERS)
    tab.open(place.page.address)
    tab.wait_for(READY)
    tab.click("start")
    tab.wait_for(SEES + " && document.getElementById('faces').textContent.includes('Face 1')")
    assert not tab.run(BARE)
    tab.run("hold = true")
    tab.wait_for("held.length === 1")
    tab.click("start")
    for _ in range(2):
        assert tab.run(BARE)
        assert tab.run("emofl.state.view === null && emofl.state.faces.length === 0")
        assert text(tab, "faces") == text(tab, "status") == ""
        tab.run("hold = false; held.shift()?.()")
        for key in ("pause", "mirror", "heatmap", "whole", "heatmap", "mirror", "whole"):
            tab.click(key)
    assert not [one for one in tab.messages if "TypeError" in one]
    tab.click("start")
    tab.wait_for("emofl.state.faces.length > 0")
    assert not tab.run(BARE)


def test_what_was_found_in_one_picture_is_not_shown_on_the_next(place: Place, tab: Tab, tmp_path: Path) -> None:
    for name, size in (("first", (240, 320)), ("second", (240, 280))):
        cv2.imwrite(str(tmp_path / f"{name}.png"), next(render_scene(1, seed=5, people=1, size=size)).picture)
    tab.before(HOLDS_ANSWERS)
    tab.open(place.page.address)
    tab.wait_for(READY)
    tab.run("hold = true")
    tab.choose_file("upload", tmp_path / "first.png")
    tab.wait_for("held.length === 1")
    tab.choose_file("upload", tmp_path / "second.png")
    tab.wait_for("emofl.state.view.width === 280")
    assert tab.run("(() => { hold = false; held.shift()(); return emofl.state.faces.length; })()") == 0
    tab.wait_for("emofl.state.faces.length > 0")
    assert tab.run("[emofl.state.view.width, emofl.state.view.height]") == [280, 240]


def test_a_frame_that_cannot_be_read_is_said_until_one_can(place: Place, tab: Tab) -> None:
    tab.before(HOLDS_ANSWERS)
    tab.open(place.page.address)
    tab.wait_for(READY)
    tab.click("start")
    tab.wait_for(SEES)
    tab.run("""(() => {
      globalThis.troubles = [];
      const trouble = document.getElementById("trouble");
      new MutationObserver(() => troubles.push(trouble.textContent)).observe(trouble, { childList: true });
      spoil = "frame";
    })()""")
    tab.wait_for("troubles.some((one) => one.startsWith('This frame could not be read: '))")
    tab.wait_for("document.getElementById('trouble').hidden")


def test_a_model_that_is_not_what_was_signed_is_never_run(place: Place, tab: Tab) -> None:
    place.files._files[ONNX] = File(ONNX, tiny_onnx(9))
    tab.before(NOTES_WHAT_WORKERS_ARE_TOLD)
    tab.open(place.page.address)
    tab.wait_for("document.getElementById('trouble')?.hidden === false")
    assert "model.onnx is not what was signed" in text(tab, "trouble")
    assert tab.run("emofl.state.model === null && document.getElementById('start').disabled")
    assert set(tab.run("told")) <= {"prepare"}, "the model was given to what runs models"


def test_a_manifest_that_was_altered_is_refused(place: Place, tab: Tab) -> None:
    content = place.files._files[MANIFEST].plain
    altered = content.replace(b"epsilon is at most 7.90", b"epsilon is at most 0.90")
    assert altered != content
    place.files._files[MANIFEST] = File(MANIFEST, altered)
    tab.open(place.page.address)
    tab.wait_for("document.getElementById('trouble')?.hidden === false")
    assert "not signed by the publisher's key" in text(tab, "trouble")
    assert not [one for one in tab.requests if one["url"].endswith("model.onnx")]


def test_another_key_than_the_one_met_first_is_refused(place: Place, tab: Tab, tmp_path: Path) -> None:
    tab.open(f"{place.page.address}#trust={KEY.public.fingerprint}")
    tab.wait_for(READY)
    other = tmp_path / "other"
    Registry(other, OTHER_KEY).publish(weights_of_round(1), tiny_onnx(2), facts_of_round(1))
    place.files.__init__(other, OTHER_KEY.public, place.said.append)  # type: ignore[misc]
    tab.open("about:blank")
    tab.open(place.page.address)
    tab.wait_for("document.getElementById('trouble')?.hidden === false")
    assert "signed by another key" in text(tab, "trouble")
    tab.click("forget")
    tab.wait_for(READY)


def test_a_registry_that_went_back_is_refused(place: Place, tab: Tab) -> None:
    place.publish(2)
    time.sleep(1.1)
    tab.open(place.page.address)
    tab.wait_for("globalThis.emofl?.state.model?.version === '000002-r0002'")
    first = Registry(place.registry.parent / "again", KEY)
    first.publish(weights_of_round(1), tiny_onnx(1), facts_of_round(1))
    place.files.__init__(first.folder, KEY.public, place.said.append)  # type: ignore[misc]
    tab.open("about:blank")
    tab.open(place.page.address)
    tab.wait_for("document.getElementById('trouble')?.hidden === false")
    assert "number 1, and this browser has seen number 2" in text(tab, "trouble")


def test_a_phone_has_room_for_everything_and_a_keyboard_reaches_it(place: Place, tab: Tab) -> None:
    tab.size(360, 740, dark=True)
    tab.open(place.page.address)
    tab.wait_for(READY)
    tab.click("start")
    tab.wait_for(SEES)
    assert tab.run("document.documentElement.scrollWidth") <= 360
    small = tab.run("""[...document.querySelectorAll('button, label.button, select')].filter((one) => one.offsetParent)
      .map((one) => one.getBoundingClientRect()).filter(({ height }) => height < 43).length""")
    assert small == 0
    tab.run("document.dispatchEvent(new KeyboardEvent('keydown', { key: 'p' }))")
    assert tab.run("document.getElementById('pause').getAttribute('aria-pressed')") == "true"
    tab.wait_for("document.getElementById('status').textContent.startsWith('Face 1: ')")
    assert text(tab, "faces").count("Face") >= 1


def test_a_model_without_a_promise_is_shown_as_an_alarm(place: Place, tab: Tab) -> None:
    place.publish(3, privacy=PrivacyStatement.absent("everything"))
    time.sleep(1.1)
    tab.open(place.page.address)
    tab.wait_for(READY)
    assert text(tab, "badge") == "NON-PRIVATE"
    assert tab.run("document.getElementById('badge').classList.contains('alarm')")
    assert "NOT PRIVATE" in text(tab, "promise")


def test_what_the_page_states_is_what_the_manifest_states(place: Place, tab: Tab) -> None:
    tab.open(place.page.address)
    tab.wait_for(READY)
    manifest: Manifest = place.files.newest.manifest
    assert text(tab, "badge") == "record-level epsilon 7.9"
    assert text(tab, "proof") == "18 of 20 devices, signature verified"
    assert text(tab, "fact-key").replace(" ", "") == KEY.public.fingerprint
    assert text(tab, "fact-hash") == manifest.files[ONNX].sha256
    assert manifest.version in text(tab, "fact-version")


WASM, DETECTOR, MODEL = "/camera/runtime/ort-wasm-simd-threaded.wasm", "/camera/detector.onnx", "/models/000001-r0001/model.onnx"


@pytest.mark.parametrize("path", [WASM, DETECTOR, MODEL, "/models/latest/manifest.json"])
def test_a_busy_server_is_asked_again_and_the_page_says_so(place: Place, tab: Tab, path: str) -> None:
    place.find_faces()
    busy = {path: 4}
    place.recorder.busy = busy
    tab.before(NOTES_HINTS)
    tab.open(place.page.address)
    tab.wait_for(READY)
    assert busy == {path: 0}
    assert [one for one in tab.run("hints") if one.startswith("The server is busy; it is asked again in ")]
    assert tab.run("document.getElementById('trouble').hidden")
    tab.click("start")
    tab.wait_for(SEES)
    assert tab.run("emofl.state.model.guided") is False, "the page went on without the detector"


NOTES_HINTS = """(() => {
  globalThis.hints = [];
  addEventListener("DOMContentLoaded", () => {
    const hint = document.getElementById("hint");
    const observer = new MutationObserver(() => hints.push(hint.textContent));
    observer.observe(hint, { childList: true, characterData: true, subtree: true });
  });
})()"""


def test_a_server_that_is_out_of_reach_is_asked_until_it_is_back(place: Place, tab: Tab) -> None:
    tab.call("Network.setBlockedURLs", urls=["*/models/*"])
    tab.open(place.page.address)
    tab.wait_for("document.getElementById('hint')?.textContent === 'The server does not answer; this page goes on trying.'")
    tab.call("Network.setBlockedURLs", urls=[])
    tab.wait_for(READY)


@pytest.mark.parametrize(
    ("before", "sentence"),
    [
        ("delete globalThis.WebAssembly", "runs no WebAssembly"),
        ("WebAssembly.validate = () => false", "lacks SIMD"),
        ("delete globalThis.OffscreenCanvas", "too old to run the model beside the page"),
    ],
)
def test_a_browser_that_cannot_run_models_is_told_what_is_missing(place: Place, tab: Tab, before: str, sentence: str) -> None:
    tab.before(before)
    tab.open(place.page.address)
    tab.wait_for("document.getElementById('trouble')?.hidden === false")
    assert sentence in text(tab, "trouble")
    assert tab.run("document.getElementById('start').disabled")


def test_a_server_without_the_runtime_is_named_as_the_reason(place: Place, tab: Tab) -> None:
    place.recorder.app.router.routes[:] = [  # type: ignore[attr-defined]
        route
        for route in place.recorder.app.router.routes  # type: ignore[attr-defined]
        if getattr(route, "path", "") != WASM
    ]
    tab.open(place.page.address)
    tab.wait_for("document.getElementById('trouble')?.hidden === false")
    assert text(tab, "trouble") == "This server lacks what runs models in a browser; tell whoever runs it."


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        ("NotAllowedError", "was not allowed: allow it beside the page's address"),
        ("NotFoundError", "No camera was found"),
        ("NotReadableError", "perhaps because another program uses it"),
        ("AbortError", "The camera cannot be used"),
    ],
)
def test_a_camera_that_cannot_be_used_is_explained_and_a_picture_still_works(
    place: Place, tab: Tab, tmp_path: Path, error: str, sentence: str
) -> None:
    tab.before(f"navigator.mediaDevices.getUserMedia = async () => {{ throw new DOMException('no', {error!r}); }}")
    tab.open(place.page.address)
    tab.wait_for(READY)
    tab.click("start")
    tab.wait_for("document.getElementById('trouble').hidden === false")
    assert sentence in text(tab, "trouble")
    assert text(tab, "start") == "Start camera"
    cv2.imwrite(str(tmp_path / "face.png"), next(render_scene(1, seed=5, people=1, size=(240, 320))).picture)
    tab.choose_file("upload", tmp_path / "face.png")
    tab.wait_for("emofl.state.view?.live === false && emofl.state.faces.length > 0")
    assert tab.run("document.getElementById('trouble').hidden")


def test_a_camera_that_is_taken_away_is_explained_and_can_be_started_again(place: Place, tab: Tab) -> None:
    tab.open(place.page.address)
    tab.wait_for(READY)
    tab.click("start")
    tab.wait_for(SEES)
    tab.run("document.getElementById('video').srcObject.getTracks()[0].dispatchEvent(new Event('ended'))")
    assert "The camera was taken away" in text(tab, "trouble")
    assert text(tab, "start") == "Start camera"
    tab.click("start")
    tab.wait_for(SEES)
    assert tab.run("document.getElementById('trouble').hidden")


def test_labels_stay_fresh_while_faces_take_turns(place: Place, tab: Tab) -> None:
    place.find_faces()
    tab.open(place.page.address)
    tab.wait_for(READY)
    tab.click("start")
    tab.wait_for(SEES)
    tab.wait_for("emofl.state.faces.length === 2")
    tab.run("globalThis.frames = []; emofl.drawn = () => frames.push(emofl.state.faces.map(({ id, seen }) => [id, seen]))")
    tab.wait_for("frames.length >= 40")
    looks = dict[int, list[float]]()
    for frame in tab.run("frames"):
        for number, when in frame:
            looks.setdefault(number, []).append(when)
    stayed = [seen for seen in looks.values() if len(seen) >= 30]
    assert len(stayed) == 2, {number: len(seen) for number, seen in looks.items()}
    for seen in stayed:
        assert seen == sorted(seen)
        assert len(set(seen)) >= 5, "a label grew old while its face was in view"
