"""What the camera page's files promise before a browser reads them: whole, strict, from one address."""

import asyncio
import base64
import gzip
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import brotli
import cv2
import httpx
import numpy as np
import pytest
from starlette.applications import Starlette

from common.canonical import sha256
from models.detector.candidates import padded, reduced
from models.detector.levels import LEVELS
from models.faces.crop import crop_face
from models.faces.light import relit
from models.web.detection import SPEC
from models.web.fetch_runtime import SOURCE, VERSION
from models.web.site import HEADERS, IMPORTED, PARTS, RUNTIME, SCRIPTS, STATIC, CameraSite, Detection

NODE = shutil.which("node")
WASM = "/camera/runtime/ort-wasm-simd-threaded.wasm"


@dataclass(frozen=True)
class Visitor:
    """Asks a site without a network; an answer's content stays compressed."""

    site: CameraSite

    def get(self, path: str, **headers: str) -> httpx.Response:
        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(Starlette(routes=list(self.site.routes())))
            asked = {"accept-encoding": "identity"} | {name.replace("_", "-"): value for name, value in headers.items()}
            async with (
                httpx.AsyncClient(transport=transport, base_url="https://test") as client,
                client.stream("GET", path, headers=asked) as answer,
            ):
                raw = b"".join([part async for part in answer.aiter_raw()])
                return httpx.Response(answer.status_code, headers=Plain(answer.headers), content=raw)

        return asyncio.run(ask())


class Plain(httpx.Headers):
    """Headers that httpx decodes nothing by."""

    def __init__(self, headers: httpx.Headers) -> None:
        kept = {name: value for name, value in headers.items() if name != "content-encoding"}
        super().__init__(kept | {"x-coding": headers.get("content-encoding", "")})


def client(site: CameraSite) -> Visitor:
    return Visitor(site)


@pytest.fixture(scope="module")
def site() -> CameraSite:
    return CameraSite(server=True)


def test_the_runtime_is_what_its_publisher_published() -> None:
    source = json.loads((RUNTIME / SOURCE).read_bytes())
    assert source["version"] == VERSION
    assert source["sha256"] == {part: sha256(brotli.decompress((RUNTIME / f"{part}.br").read_bytes())) for part in PARTS}
    assert "MIT License" in (RUNTIME / "LICENSE").read_text()


def test_a_server_gives_the_runtime_to_who_takes_brotli_and_others_get_a_sentence(site: CameraSite) -> None:
    runtime = [f"/camera/runtime/{part}" for part in PARTS]
    for path in runtime:
        for taken in ("gzip, br", "br;q=0.5", "BR"):
            answer = client(site).get(path, accept_encoding=taken)
            assert (answer.status_code, answer.headers["x-coding"]) == (200, "br")
            assert sha256(answer.content) == sha256((RUNTIME / f"{Path(path).name}.br").read_bytes())
        for taken in ("gzip;q=0.9", "identity", "", "br;q=0, gzip", "br; q=0.0"):
            answer = client(site).get(path, accept_encoding=taken)
            assert answer.status_code == 406
            assert "Accept-Encoding: br" in answer.text
            assert answer.headers["vary"] == "accept-encoding"
    assert client(site).get(WASM, accept_encoding="br").headers["content-type"] == "application/wasm"
    assert not [path for path in runtime if {"plain", "_gzip"} & vars(site._files[path]).keys()], "it was unpacked in the server"


def test_on_ones_own_machine_the_runtime_is_unpacked_for_browsers_that_take_brotli_over_https_only() -> None:
    own = client(CameraSite(server=False))
    assert own.get(WASM, accept_encoding="gzip, deflate, br").headers["x-coding"] == "br"
    for taken in ("gzip, deflate", "identity"):
        answer = own.get(WASM, accept_encoding=taken)
        assert (answer.status_code, answer.headers["x-coding"], answer.content[:4]) == (200, "", b"\0asm")
        assert sha256(answer.content) == json.loads((RUNTIME / SOURCE).read_bytes())["sha256"][Path(WASM).name]


def test_scripts_are_sent_compressed_to_who_takes_it(site: CameraSite) -> None:
    packed, plain = (client(site).get("/camera/camera.js", accept_encoding=taken) for taken in ("gzip, br", "identity"))
    assert packed.headers["x-coding"] == "gzip"
    assert gzip.decompress(packed.content) == plain.content == (STATIC / "camera.js").read_bytes()


def test_a_file_that_a_browser_has_is_not_sent_again(site: CameraSite) -> None:
    for path in ("/camera", "/camera/engine.js", WASM):
        first = client(site).get(path, accept_encoding="br")
        again = client(site).get(path, if_none_match=f"W/{first.headers['etag']}")
        assert (again.status_code, again.content) == (304, b"")


def test_every_answer_keeps_pictures_in_the_page(site: CameraSite) -> None:
    policy = dict(part.split(" ", 1) for part in HEADERS["content-security-policy"].split("; "))
    assert policy == {
        "default-src": "'none'",
        "script-src": "'self' 'wasm-unsafe-eval'",
        "worker-src": "'self'",
        "connect-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    for path in ("/camera", "/camera/camera.js", "/camera/engine.js", WASM, "/style.css"):
        answer = client(site).get(path)
        assert HEADERS.items() <= dict(answer.headers).items()


def test_the_scripts_name_no_address_and_have_no_other_way_out_than_fetch() -> None:
    for name in SCRIPTS:
        text = (STATIC / name).read_text()
        assert not re.search(r"https?:|wss?:|//[a-z]+\.", re.sub(r"^\s*//.*$", "", text, flags=re.MULTILINE)), name
        for word in ("XMLHttpRequest", "WebSocket", "sendBeacon", "RTCPeer", "EventSource", "eval(", "Function(", "innerHTML"):
            assert word not in text, (name, word)
        for call in re.findall(r"fetch\(([^)]*)\)", text):
            assert "body" not in call
            assert "method" not in call
            assert (name, call.split(",")[0].strip()) == ("ask.js", "path")


class Elements(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


@pytest.mark.parametrize("server", [False, True])
def test_the_page_has_no_script_in_itself_and_everything_that_its_script_looks_for(server: bool) -> None:
    text = client(CameraSite(server)).get("/camera").text
    elements = Elements(text).found
    for tag, attributes in elements:
        assert tag not in ("style", "iframe", "form", "object", "embed")
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
        for name in ("src", "href"):
            assert not (attributes.get(name) or "/").startswith("//")
            assert "://" not in (attributes.get(name) or "")
    assert [attributes["src"] for tag, attributes in elements if tag == "script"] == ["/camera/camera.js"]
    ids = {attributes["id"] for _, attributes in elements if "id" in attributes}
    script = "".join((STATIC / name).read_text() for name in ("camera.js", *IMPORTED))
    assert set(re.findall(r'\bat\("([a-z-]+)"\)', script)) | set(re.findall(r'pressed?\("([a-z-]+)"', script)) <= ids
    assert ("/models/" in text) == server


def test_the_page_asks_at_once_for_every_script_that_it_imports() -> None:
    asked, found = {"camera.js"}, set[str]()
    while asked - found:
        name = (asked - found).pop()
        found.add(name)
        asked |= set(re.findall(r'^import .* from "\./([a-z]+\.js)";$', (STATIC / name).read_text(), flags=re.MULTILINE))
    assert set(IMPORTED) == found - {"camera.js"}
    assert all((STATIC / name).read_text().count("\n") < 300 for name in SCRIPTS)


def test_everything_on_the_page_has_a_name_for_those_who_do_not_see_it(site: CameraSite) -> None:
    elements = Elements(client(site).get("/camera").text).found
    labels = {attributes.get("for") for tag, attributes in elements if tag == "label"}
    for tag, attributes in elements:
        if tag == "input" and attributes["type"] == "file":
            assert attributes["id"] in labels
        if tag == "canvas" and "hidden" not in attributes:
            assert attributes["aria-label"]
        if tag == "section":
            assert attributes["aria-labelledby"]
    live = [attributes for _, attributes in elements if attributes.get("aria-live") == "polite"]
    assert [one["role"] for one in live] == ["status"]
    assert any(attributes.get("role") == "alert" for _, attributes in elements)


def test_without_its_runtime_the_page_says_so_in_a_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert "lacks what runs models" not in client(CameraSite(False)).get("/camera").text
    monkeypatch.setattr("models.web.site.RUNTIME", tmp_path)
    bare = CameraSite(False)
    assert not bare.complete
    assert "lacks what runs models in a browser" in client(bare).get("/camera").text
    assert client(bare).get(WASM).status_code == 404


def test_the_detector_is_given_out_where_there_is_one() -> None:
    bare, found = client(CameraSite(False)), client(CameraSite(False, Detection({"kind": "grid"}, b"network")))
    assert bare.get("/camera/detector.json").status_code == 404
    assert found.get("/camera/detector.json").json() == {"kind": "grid"}
    assert found.get("/camera/detector.onnx").content == b"network"


Node = Callable[[str, Any], Any]


@pytest.fixture
def node(tmp_path: Path) -> Node:
    """Runs a script that may import the page's own, with a value as `given`; what it returns comes back."""
    if NODE is None:
        pytest.skip("There is no node here.")
    shutil.copytree(STATIC, tmp_path / "static")
    (tmp_path / "static" / "package.json").write_text('{"type": "module"}')

    def run(script: str, given: Any) -> Any:
        (tmp_path / "given.json").write_text(json.dumps(given))
        path = tmp_path / "static" / "test.js"
        reads = 'import fs from "node:fs";\nconst given = JSON.parse(fs.readFileSync(process.argv[2]));\n'
        path.write_text(reads + script + "\nconsole.log(JSON.stringify(await main()));")
        done = subprocess.run([NODE or "", path, tmp_path / "given.json"], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


CROPS = """
import { cropFace, greyPicture, normalise } from "./crop.js";
const main = () => given.map(({ rgba, width, height, box, size, margin, how }) => {
  const grey = greyPicture({ data: Uint8Array.from(rgba), width, height });
  const face = cropFace({ grey, width, height }, box, size, margin);
  const batch = new Float32Array(size * size);
  normalise(face, how, batch, 0);
  return { face: Array.from(face), input: Array.from(batch.slice(0, 50)) };
});
"""


def test_the_browser_reproduces_the_golden_crops(node: Node) -> None:
    golden = json.loads((Path(__file__).parents[2] / "golden" / "crop.json").read_bytes())
    codes = {"BGR": cv2.COLOR_BGR2RGBA, "BGRA": cv2.COLOR_BGRA2RGBA, "grey": cv2.COLOR_GRAY2RGBA}
    pictures = {}
    for name, packed in golden["pictures"].items():
        pixels = np.frombuffer(base64.b64decode(packed["pixels"]), np.uint8)
        shaped = pixels.reshape(packed["rows"], packed["columns"], -1)
        made = cv2.cvtColor(shaped, codes[packed["channels"]])
        pictures[name] = {"rgba": made.ravel().tolist(), "width": packed["columns"], "height": packed["rows"]}
    how = {"mean": 0.5, "std": 0.25}
    given = [
        pictures[case["picture"]] | {key: case[key] for key in ("box", "size", "margin")} | {"how": how}
        for case in golden["cases"]
    ]
    for got, case in zip(node(CROPS, given), golden["cases"], strict=True):
        assert bytes(got["face"]) == base64.b64decode(case["face"]), case["box"]


def picture(rng: np.random.Generator, rows: int, columns: int, smooth: bool) -> Any:
    made = rng.integers(0, 256, (rows, columns, 3), dtype=np.uint8)
    return cv2.GaussianBlur(made, (0, 0), 1.5) if smooth else made


def rgba(bgr: Any) -> list[int]:
    return list(np.dstack([bgr[:, :, ::-1], np.full(bgr.shape[:2], 255, np.uint8)]).ravel().tolist())


def test_the_browser_cuts_out_the_same_face_pixel_for_pixel(node: Node) -> None:
    rng = np.random.default_rng(5)
    cases, wanted = [], []
    sides = [24, 48, 96, 144, 192, 47, 49, 97, 1, 12, 200, 61, 37, 73, 120, 30, 83, 20]
    for number, side in enumerate(sides):
        bgr = picture(rng, 90, 110, smooth=number % 2 == 0)
        box = (int(rng.integers(-40, 90)), int(rng.integers(-40, 70)), side, max(1, side - 5 * (number % 3)))
        size, margin = (48, 64)[number % 2], (0.0, 0.1, 0.25)[number % 3]
        how = {"mean": 0.5, "std": 0.25}
        cases.append({"rgba": rgba(bgr), "width": 110, "height": 90, "box": box, "size": size, "margin": margin, "how": how})
        wanted.append(crop_face(bgr, box, size, margin))
    for got, face in zip(node(CROPS, cases), wanted, strict=True):
        np.testing.assert_array_equal(np.array(got["face"], np.uint8).reshape(face.shape), face)


def test_the_browser_normalises_to_the_same_bits(node: Node) -> None:
    from models.preprocess import Preprocessing

    bgr = picture(np.random.default_rng(6), 48, 48, smooth=False)
    how = Preprocessing(mean=0.47, std=0.23)
    case = {"rgba": rgba(bgr), "width": 48, "height": 48, "box": [0, 0, 48, 48], "size": 48, "margin": 0, "how": how.model_dump()}
    [got] = node(CROPS, [case])
    assert np.array_equal(np.array(got["input"], np.float32), how.normalise(how.whole(bgr)[None]).ravel()[:50])


RELIT = """
import { relit } from "./crop.js";
const main = () => given.map(({ face, size }) => Array.from(relit(Uint8Array.from(face), size)));
"""


def dim_faces() -> list[Any]:
    """Dim ones, ones at the border of what counts as dim, ones that span next to nothing, and ordinary ones."""
    rng = np.random.default_rng(13)
    ordinary = [cv2.GaussianBlur(rng.integers(0, 256, (size, size), dtype=np.uint8), (0, 0), 2) for size in (48, 64, 33)]
    ordinary = [cv2.normalize(face, None, 0, 255, cv2.NORM_MINMAX) for face in ordinary]
    dim = [(face * part + dark).astype(np.uint8) for face in ordinary for part in (0.6, 0.3, 0.1, 0.05) for dark in (0, 7, 90)]
    flat = [np.full((48, 48), 17, np.uint8), *(rng.integers(40, 41 + span, (48, 48), dtype=np.uint8) for span in range(1, 9))]
    halves = [np.repeat(np.array([20, 20 + step], np.uint8), 24)[None].repeat(48, axis=0) for step in (3, 4, 5, 6, 47, 48, 49)]
    grain = [rng.integers(0, most, (48, 48), dtype=np.uint8) for most in (20, 60, 82, 84)]
    spots = [np.zeros((48, 48), np.uint8) for _ in range(2)]
    spots[0][:5, :5], spots[1][-1, -1] = 255, 255
    return [*ordinary, *dim, *flat, *halves, *grain, *spots]


def test_the_browser_relights_a_dim_face_byte_for_byte_as_python_does(node: Node) -> None:
    faces = dim_faces()
    wanted = [relit(face) for face in faces]
    got = node(RELIT, [{"face": face.ravel().tolist(), "size": len(face)} for face in faces])
    for face, mine, theirs in zip(faces, wanted, got, strict=True):
        np.testing.assert_array_equal(np.array(theirs, np.uint8).reshape(face.shape), mine)
    changed = [not np.array_equal(face, made) for face, made in zip(faces, wanted, strict=True)]
    assert 30 < sum(changed) < len(faces) - 8


UNREADABLE = """
globalThis.OffscreenCanvas = class {
  getContext() {
    return {
      drawImage: () => { if (!given.colours) throw new Error("no pixels"); },
      getImageData: (x, y, width, height) => ({ data: new Uint8ClampedArray(4 * width * height).fill(80) }),
    };
  }
};
const { openFrame } = await import("./frame.js");
const main = async () => {
  let closed = 0;
  const picture = {
    format: "I420", displayWidth: 8, displayHeight: 4, visibleRect: { width: 8, height: 4 }, allocationSize: () => 48,
    copyTo: async () => { throw new Error("the frame is gone"); }, close: () => (closed += 1),
  };
  const frame = await openFrame(picture).catch(() => null);
  return { closed, grey: frame && [...new Set(frame.grey)] };
};
"""


def test_a_frame_without_a_readable_brightness_plane_is_read_by_its_colours(node: Node) -> None:
    assert node(UNREADABLE, {"colours": True}) == {"closed": 0, "grey": [80]}


def test_a_frame_that_cannot_be_read_at_all_is_closed(node: Node) -> None:
    assert node(UNREADABLE, {"colours": False}) == {"closed": 1, "grey": None}


SWAPPED = """
const workers = [];
globalThis.fetch = async () => new Response("", { status: 404 });
globalThis.Worker = class {
  told = [];
  ended = false;
  constructor() { workers.push(this); }
  postMessage(message) {
    this.told.push([message.kind, message.number ?? message.faces?.[0] ?? null]);
    const answer = { prepare: { kind: "prepared", guided: true }, load: { kind: "ready", heatmap: false } }[message.kind];
    if (answer) queueMicrotask(() => this.onmessage({ data: answer }));
  }
  terminate() { this.ended = true; }
};
const { Runner } = await import("./runner.js");
const pause = () => new Promise((done) => setTimeout(done, 5));
const main = async () => {
  const heard = [];
  const runner = new Runner({ say() {}, heard: ({ number }) => heard.push(number), ended: () => heard.push("ended") });
  const use = () => runner.use({ manifest: { model: { classes: [] }, preprocessing: {} }, onnx: null }, () => heard.slice(-1));
  const send = (number) => runner.send({ number, picture: { close() {} } });
  const answer = (worker, number) => worker.onmessage({ data: { kind: "faces", number } });
  await use();
  send(1);
  const swap = use();
  await pause();
  send(2);
  const early = workers[0].ended;
  answer(workers[0], 1);
  await swap;
  answer(workers[1], 2);
  send(3);
  const rescue = use();
  await pause();
  workers[1].onerror();
  await rescue;
  send(4);
  return { early, heard, told: workers.map(({ told }) => told), ended: workers.map(({ ended }) => ended) };
};
"""


def test_a_newer_model_waits_for_the_end_of_a_frame_and_no_frame_is_lost(node: Node) -> None:
    got = node(SWAPPED, None)
    assert got["early"] is False, "the worker was ended in the middle of a frame"
    assert got["heard"] == [1, 2, "ended"]
    start = [["prepare", None], ["load", None]]
    assert got["told"][0] == [*start, ["adopt", None], ["frame", 1]]
    assert got["told"][1] == [*start, ["adopt", 1], ["frame", 2], ["frame", 3]], "what the last frame found goes over"
    assert got["told"][2] == [*start, ["adopt", "ended"], ["frame", 4]], "a worker that died holds nothing up"
    assert got["ended"][0]


MEANT = """
import { meaningOf } from "./frame.js";
const main = () => given.map(([plane, grey]) => {
  const table = meaningOf(Uint8Array.from(plane), Uint8Array.from(grey));
  return table && plane.map((value) => table[value]);
});
"""


def test_a_brightness_plane_is_used_only_where_it_is_the_grey_of_the_colours(node: Node) -> None:
    bgr = picture(np.random.default_rng(12), 120, 160, smooth=True)
    grey = cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY).ravel()
    full = cv2.cvtColor(bgr, cv2.COLOR_BGR2YCrCb)[:, :, 0].ravel()
    limited = cv2.cvtColor(bgr, cv2.COLOR_BGR2YUV_I420)[:120].ravel()
    other_weights = (bgr @ [0.0722, 0.7152, 0.2126]).round().astype(np.uint8).ravel()
    turned = full.reshape(120, 160)[::-1].ravel()
    planes = (full, limited, other_weights, turned)
    got = node(MEANT, [[plane.tolist(), grey.tolist()] for plane in planes])
    for found in got[:2]:
        assert np.abs(np.array(found) - grey).max() <= 2
    assert got[2:] == [None, None]


PREPARED = """
import { greyPicture } from "./crop.js";
import { prepare } from "./detector.js";
const main = () => given.map(({ rgba, width, height }) => {
  const frame = { data: Uint8Array.from(rgba), width, height };
  const made = prepare(frame, [greyPicture(frame)], { longest: 64, multiple: 16 });
  return { ...made, picture: Array.from(made.planes[0]) };
});
"""


@pytest.mark.parametrize("size", [(120, 160), (64, 64), (97, 131), (40, 50), (200, 30), (480, 640), (81, 108), (256, 512)])
def test_the_browser_reduces_a_frame_for_its_detector_as_python_does(node: Node, size: tuple[int, int]) -> None:
    bgr = picture(np.random.default_rng(7), *size, smooth=True)
    [got] = node(PREPARED, [{"rgba": rgba(bgr), "width": size[1], "height": size[0]}])
    small, factor = reduced(cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY), 64)
    grey = padded(small, 16)
    assert (got["height"], got["width"], got["factor"]) == (*grey.shape, factor)
    np.testing.assert_array_equal(np.array(got["picture"]).reshape(grey.shape), grey)


FOUND = """
import { Blaze, Grid } from "./detector.js";
const main = async () => {
  const Kind = { grid: Grid, blaze: Blaze }[given.spec.kind];
  const maps = Object.fromEntries(given.maps.map(({ name, dims, data }) => [name, { dims, data }]));
  const ort = { Tensor: class {} };
  const grid = new Kind(ort, { run: async () => maps }, given.spec);
  const [width, height] = given.size;
  return grid.detect({ data: new Uint8Array(4 * width * height), grey: new Uint8Array(width * height), width, height });
};
"""


def test_the_browser_makes_the_same_boxes_of_what_the_detector_answers(node: Node) -> None:
    from models.detector import grid
    from models.detector.candidates import Candidates, blended

    rng = np.random.default_rng(9)
    assert (SPEC["longest"], SPEC["threshold"]) == (grid.LONGEST_SIDE, grid.THRESHOLD)
    for _ in range(3):
        maps = []
        for stride in (8, 16):
            made = rng.normal(0, 0.3, (4, grid.LONGEST_SIDE * 3 // 4 // stride, grid.LONGEST_SIDE // stride)).astype(np.float32)
            made[0] = rng.normal(-4, 2.2, made.shape[1:])
            maps.append(made)
        parts = [
            grid._candidates(made, level.stride, level.side, grid.THRESHOLD) for made, level in zip(maps, LEVELS, strict=True)
        ]
        wanted = blended(Candidates(*(np.concatenate([part[at] for part in parts]) for at in (0, 1))), 640 / grid.LONGEST_SIDE)
        given = [
            {"name": name, "dims": [1, *made.shape], "data": made.ravel().tolist()}
            for name, made in zip(("fine", "coarse"), maps, strict=True)
        ]
        got = node(FOUND, {"maps": given, "spec": SPEC, "size": [640, 480]})
        assert len(got) > 5
        assert len(got) == len(wanted)
        np.testing.assert_allclose(got, [one.box for one in wanted], atol=1)


def test_the_browser_makes_the_same_boxes_of_what_blazeface_answers(node: Node) -> None:
    from fl_client.webcam.serving import BLAZE
    from models.detector import blaze
    from models.detector.candidates import Candidates, blended

    rng = np.random.default_rng(10)
    given, parts = [], []
    for scores, boxes, stride, per_cell in blaze.LEVELS:
        rows, columns = 192 // stride, 256 // stride
        sure = rng.normal(-5, 2.5, (per_cell, rows, columns)).astype(np.float32)
        where = rng.normal(0, 4, (per_cell, blaze.VALUES, rows, columns)).astype(np.float32)
        where[:, 2:4] = rng.uniform(12, 70, where[:, 2:4].shape)
        where = where.reshape(-1, rows, columns)
        parts.append(blaze._candidates(sure, where, stride, per_cell, blaze.THRESHOLD))
        named = {scores: sure, boxes: where}
        given += [{"name": name, "dims": [1, *made.shape], "data": made.ravel().tolist()} for name, made in named.items()]
    wanted = blended(Candidates(*(np.concatenate([part[at] for part in parts]) for at in (0, 1))), 640 / 256)
    got = node(FOUND, {"maps": given, "spec": BLAZE, "size": [640, 480]})
    assert len(got) > 5
    np.testing.assert_allclose(got, [one.box for one in wanted], atol=1)


STEADY = """
import { steadied } from "./steady.js";
const main = () => {
  let state = null;
  return given.opinions.map((opinion) => (state = steadied(state, opinion, 0.1, given.settings)));
};
"""


def test_the_browser_steadies_what_is_said_as_the_desktop_loop_does(node: Node) -> None:
    from fl_client.webcam.smoothing import SmoothingSettings, steadied

    rng = np.random.default_rng(8)
    opinions = rng.dirichlet([0.7] * 4, 40)
    settings = {"seconds": 0.3, "lead": 0.1, "least": 0.4, "slack": 0.1}
    got = node(STEADY, {"opinions": opinions.tolist(), "settings": settings})
    state = None
    for opinion, theirs in zip(opinions, got, strict=True):
        state = steadied(state, opinion, 0.1, SmoothingSettings(**settings))
        np.testing.assert_allclose(theirs["probabilities"], state.probabilities, rtol=1e-12)
        assert theirs["shown"] == state.shown
    assert {one["shown"] for one in got} > {None}


FOLLOWED = """
import { Tracker } from "./track.js";
const main = () => {
  const tracker = new Tracker();
  const scene = (at) => {
    const grey = new Uint8Array(160 * 120).fill(90);
    for (let y = 0; y < 40; y++) {
      for (let x = 0; x < 40; x++) grey[(y + 30) * 160 + x + at] = 30 + 4 * x + ((y * 37) % 60);
    }
    return { grey, width: 160, height: 120 };
  };
  tracker.detected([[40, 30, 40, 40]]);
  tracker.remember(scene(40));
  const kept = [];
  for (let at = 42; at <= 60; at += 2) {
    kept.push([tracker.follow(scene(at)), tracker.tracks[0].exact[0] - at]);
  }
  const known = tracker.tracks[0].id;
  tracker.detected([[61, 31, 40, 40], [5, 5, 20, 20]]);
  const ids = tracker.tracks.map(({ id }) => id);
  for (let i = 0; i < 3; i++) tracker.detected([[5, 5, 20, 20]]);
  return { kept, known, ids, left: tracker.tracks.map(({ id }) => id) };
};
"""


def test_a_face_keeps_its_number_while_it_moves_and_loses_it_when_it_is_gone(node: Node) -> None:
    got = node(FOLLOWED, None)
    assert all(found and abs(off) <= 2 for found, off in got["kept"])
    assert got["known"] == 1
    assert got["ids"] == [1, 2]
    assert got["left"] == [2]


DUE = """
import { BUDGET, OLDEST, dueFaces } from "./turns.js";
const main = () => given.map(([seen, how]) => {
  const tracks = seen.map((age, id) => ({ id, seen: age === null ? null : 10000 - age }));
  return dueFaces(tracks, { time: 10000, ...how }).map(({ id }) => id);
}).concat([[BUDGET, OLDEST]]);
"""


def test_faces_take_turns_where_time_is_short_and_none_waits_too_long(node: Node) -> None:
    slow = {"spent": 3, "perFace": 12, "detected": False}
    fast = {"spent": 1, "perFace": 2, "detected": False}
    after_detection = slow | {"spent": 9, "detected": True}
    cases = [
        [[40, 70, 10], slow],
        [[40, 70, 10], fast],
        [[40, 70, 10], after_detection],
        [[40, 200, 120], slow],
        [[None, 70, None], after_detection],
        [[], slow],
    ]
    *got, (budget, oldest) = node(DUE, cases)
    assert (budget, oldest) == (14, 110)
    assert got == [[1], [1, 0, 2], [], [1, 2], [0, 2], []]


ASKED = """
const waits = [];
globalThis.setTimeout = (done, ms) => (waits.push(ms), queueMicrotask(done));
Object.defineProperty(globalThis, "navigator", { value: { onLine: true }, configurable: true });
const left = [...given];
globalThis.fetch = async () => {
  const next = left.shift();
  if (next === "down") throw new TypeError("Failed to fetch");
  return new Response(next === 304 ? null : "x", { status: next, headers: { "retry-after": "4" } });
};
const { ask } = await import("./ask.js");
const main = async () => {
  const said = [];
  const answer = await ask("/models/x", (sentence) => said.push(sentence));
  return { status: answer.status, said, waits };
};
"""


def test_a_busy_server_is_asked_again_when_it_says_and_less_and_less_often(node: Node) -> None:
    got = node(ASKED, [503, 503, 503, "down", 200])
    assert got["status"] == 200
    assert [bool(re.fullmatch(r"The server is busy; it is asked again in \d+ s\.", one)) for one in got["said"][:3]] == [True] * 3
    assert got["said"][3] == "The server does not answer; this page goes on trying."
    first, second, third, _ = (wait / 1000 for wait in got["waits"])
    assert 4 <= first <= 5
    assert 6 <= second <= 8
    assert 9 <= third <= 12
    assert max(node(ASKED, [503] * 30 + [200])["waits"]) <= 38_000


@pytest.mark.parametrize("status", [200, 404, 500])
def test_other_answers_are_passed_on(node: Node, status: int) -> None:
    assert node(ASKED, [status]) == {"status": status, "said": [], "waits": []}
