"""`/v1/predict`: what it answers, whom it refuses and before what, and that it keeps nothing."""

import asyncio
import io
import json
import struct
import threading
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper
from PIL import Image
from starlette.applications import Starlette

from common.certificates import CertificateAuthority, certificate_pem
from common.errors import IntegrityError
from fl_client.webcam import classifier
from fl_client.webcam.tracking import Tracker
from fl_server import predict
from fl_server.fleet_door import sender
from fl_server.gate import Gate
from fl_server.hub import Registry
from fl_server.openapi import OPENAPI, PATH
from fl_server.pages import Pages
from fl_server.plan import Plan
from fl_server.predict import LARGEST_BODY, MOST_PIXELS, MOST_WAITING, PER_ADDRESS, Predict, Predictor, load_token
from fl_server.server_folder import ServerFolder
from fl_server.service import _predict
from fl_server.web.downloads import CHUNK
from models.detector.detection import Detection
from models.detector.detectors import make_detector
from models.faces.inputs import model_inputs
from models.preprocess import Preprocessing
from tests.publishing import KEY, facts_of_round, weights_of_round
from tests.tiny_model import tiny_onnx

TOKEN = "secret-of-the-operator"
AUTHORITY = CertificateAuthority.create(datetime(2026, 1, 31, tzinfo=UTC))
BOX = (20, 10, 60, 60)


def png(rows: int = 100, columns: int = 120, seed: int = 0) -> bytes:
    picture = np.random.default_rng(seed).integers(0, 256, (rows, columns, 3), dtype=np.uint8)
    return cv2.imencode(".png", cv2.GaussianBlur(picture, (0, 0), 4))[1].tobytes()


@dataclass
class Finder:
    """A detector that does what it is told."""

    find: Callable[[Any], list[Detection]] = lambda picture: []
    name: str = "fake"

    def detect(self, picture: Any) -> list[Detection]:
        return self.find(picture)


@dataclass
class Service:
    """A server's pages behind their gate, with one model and a detector that always finds one face."""

    folder: ServerFolder
    predict: Predict | None

    @property
    def app(self) -> Gate:
        pages = Pages(self.folder, KEY.public, certificate_pem(AUTHORITY.certificate), predict=self.predict)
        posts = self.predict.posts() if self.predict else {}
        return Gate(Starlette(), {}, lambda path, headers: None, sender=sender, pages=pages, page_posts=posts)

    def ask(self, method: str, path: str, content: Any = None, token: str | None = TOKEN, **headers: str) -> httpx.Response:
        asked = {"authorization": f"Bearer {token}"} if token else {}

        async def send() -> httpx.Response:
            async with httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="https://test", timeout=60) as client:
                return await client.request(method, path, content=content, headers=asked | headers)

        return asyncio.run(send())


@pytest.fixture
def service(tmp_path: Path) -> Service:
    folder = ServerFolder.prepare(tmp_path / "server")
    Registry(folder.registry, KEY).publish(weights_of_round(1), tiny_onnx(1), facts_of_round(1))
    predictor = Predictor(folder.registry, KEY.public, Finder(lambda picture: [Detection(BOX, 0.9)]))
    return Service(folder, Predict(predictor, TOKEN))


def expected(content: bytes, box: tuple[int, int, int, int], seed: int = 1) -> list[float]:
    """What the model of that seed says of the inputs that the camera loop makes of a picture."""
    picture = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    return said_of(model_inputs(Preprocessing(), picture, [box]), seed)


def said_of(inputs: NDArray[np.float32], seed: int = 1) -> list[float]:
    import onnxruntime

    session = onnxruntime.InferenceSession(tiny_onnx(seed), providers=["CPUExecutionProvider"])
    powers = np.exp(session.run(["logits"], {"faces": inputs})[0][0])
    return list(powers / powers.sum())


def four_classes(content: bytes) -> bytes:
    """The same model with weights for four classes only."""
    model = onnx.load_from_string(content)
    for tensor in model.graph.initializer:
        if tensor.dims[0] == 7:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor)[:4], tensor.name))
    for output in model.graph.output:
        output.type.tensor_type.shape.dim[1].dim_value = 4
    return bytes(model.SerializeToString())


def test_a_picture_is_answered_with_boxes_and_the_models_own_probabilities(service: Service) -> None:
    answer = service.ask("POST", PATH, png())
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    told = answer.json()
    assert (told["width"], told["height"]) == (120, 100)
    assert told["model"]["version"] == "000001-r0001"
    assert "epsilon is at most 7.90" in told["model"]["statement"]
    [face] = told["faces"]
    assert (face["box"], face["score"]) == (list(BOX), 0.9)
    np.testing.assert_allclose(list(face["probabilities"].values()), expected(png(), BOX), atol=1e-5)
    assert face["label"] == max(face["probabilities"], key=face["probabilities"].__getitem__)


def test_a_ready_crop_needs_no_detector(service: Service) -> None:
    [face] = service.ask("POST", f"{PATH}?whole=true", png()).json()["faces"]
    assert (face["box"], face["score"]) == ([0, -10, 120, 120], 1.0)
    np.testing.assert_allclose(list(face["probabilities"].values()), expected(png(), (0, -10, 120, 120)), atol=1e-5)


def test_who_wants_a_picture_gets_the_annotated_one(service: Service) -> None:
    answer = service.ask("POST", PATH, png(), accept="image/png")
    assert answer.headers["content-type"] == "image/png"
    with Image.open(io.BytesIO(answer.content)) as drawn, Image.open(io.BytesIO(png())) as sent:
        assert drawn.size == sent.size
        changed = np.abs(np.asarray(drawn.convert("RGB"), int) - np.asarray(sent.convert("RGB"), int)).max(axis=2) > 0
    assert changed[BOX[1] : BOX[1] + 60, BOX[0]].mean() > 0.9
    assert not changed[80:].any()


def test_a_picture_without_a_face_is_answered_with_none(service: Service) -> None:
    assert service.predict is not None
    service.predict.predictor = Predictor(service.folder.registry, KEY.public, Finder())
    assert service.ask("POST", PATH, png()).json()["faces"] == []


def test_the_newest_model_answers(service: Service) -> None:
    service.ask("POST", PATH, png())
    Registry(service.folder.registry, KEY).publish(weights_of_round(2), tiny_onnx(2), facts_of_round(2))
    assert service.predict is not None
    wait(service)
    told = service.ask("POST", PATH, png()).json()
    assert told["model"]["version"] == "000002-r0002"
    np.testing.assert_allclose(list(told["faces"][0]["probabilities"].values()), expected(png(), BOX, seed=2), atol=1e-5)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (tiny_onnx(2).replace(b"AveragePool", b"AveragePile"), "cannot be run by ONNX Runtime"),
        (tiny_onnx(2).replace(b"faces", b"flags"), "cannot be run"),
        (b"no graph at all", "not an ONNX model"),
        (four_classes(tiny_onnx(2)), "answers (2, 4) for two faces"),
    ],
)
def test_the_old_model_goes_on_answering_beside_a_newer_one_that_cannot_run_which_is_said_once(
    service: Service, caplog: pytest.LogCaptureFixture, content: bytes, said: str
) -> None:
    service.ask("POST", PATH, png())
    registry = Registry(service.folder.registry, KEY)
    registry.publish(weights_of_round(2), content, facts_of_round(2))
    assert service.predict is not None
    for _ in range(3):
        wait(service)
        answer = service.ask("POST", PATH, png())
        assert answer.status_code == 200
        assert answer.json()["model"]["version"] == "000001-r0001"
    [warning] = [record.getMessage() for record in caplog.records if "/v1/predict" in record.getMessage()]
    assert said in warning
    assert "000002-r0002" in warning
    assert "\n" not in warning
    registry.publish(weights_of_round(3), tiny_onnx(3), facts_of_round(3))
    wait(service)
    assert service.ask("POST", PATH, png()).json()["model"]["version"] == "000003-r0003"


def wait(service: Service, seconds: float = 2.0) -> None:
    """Let the predictor's clock go on."""
    assert service.predict is not None
    lookout = service.predict.predictor._lookout
    before = lookout.now
    lookout.now = lambda: before() + seconds


def test_a_refused_version_is_verified_less_and_less_often_and_taken_once_it_is_good(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[str] = []
    verify = predict.newer_than
    monkeypatch.setattr(predict, "newer_than", lambda model: looks.append("look") or verify(model))

    def ask() -> str:
        assert service.predict is not None
        wait(service)
        return str(service.ask("POST", PATH, png()).json()["model"]["version"])

    ask()
    Registry(service.folder.registry, KEY).publish(weights_of_round(2), tiny_onnx(2), facts_of_round(2))
    path = service.folder.registry / "versions" / "000002-r0002" / "model.onnx"
    content = path.read_bytes()
    path.chmod(0o600)
    path.write_bytes(content[:-1] + b"x")
    looks.clear()
    assert [ask() for _ in range(9)] == ["000001-r0001"] * 9
    assert len(looks) == 4
    path.write_bytes(content)
    assert "000002-r0002" in [ask() for _ in range(8)]


def test_where_the_only_version_is_refused_it_is_verified_again_after_a_pause(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[str] = []
    verify = predict.open_published
    monkeypatch.setattr(predict, "open_published", lambda *all_: looks.append("look") or verify(*all_))
    path = service.folder.registry / "versions" / "000001-r0001" / "manifest.sig"
    content = path.read_bytes()
    path.chmod(0o600)
    path.write_bytes(bytes(64))
    assert [service.ask("POST", PATH, png()).status_code for _ in range(3)] == [503] * 3
    assert len(looks) == 1
    path.write_bytes(content)
    wait(service)
    assert service.ask("POST", PATH, png()).status_code == 200


def test_a_version_that_the_system_could_not_read_for_a_moment_is_taken_later(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`models.published` tells a full table of open files as a refusal, like an altered file."""
    look = predict.open_published

    def fails(*_: object) -> None:
        raise IntegrityError("too many open files")

    monkeypatch.setattr(predict, "open_published", fails)
    assert service.ask("POST", PATH, png()).status_code == 503
    monkeypatch.setattr(predict, "open_published", look)
    wait(service)
    assert service.ask("POST", PATH, png()).status_code == 200


def test_nothing_answers_where_the_operator_did_not_ask_for_it(service: Service) -> None:
    off = Service(service.folder, None)
    assert off.ask("POST", PATH, png()).status_code == 404
    assert off.ask("GET", "/v1/openapi.json").status_code == 404
    assert off.ask("GET", PATH).status_code == 404


@pytest.mark.parametrize("token", [None, "", "wrong", TOKEN + "x", TOKEN[:-1], "é"])
def test_without_the_token_not_a_byte_of_the_picture_is_read(service: Service, token: str | None) -> None:
    read = []

    async def body() -> Any:
        read.append(1)
        yield png()

    given = {"authorization": f"Bearer {token}".encode().decode("latin-1")} if token else {}
    asked = {name: value.encode("latin-1") for name, value in given.items()}

    async def send() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(service.app), base_url="https://test") as client:
            return await client.post(PATH, content=body(), headers=asked)

    answer = asyncio.run(send())
    assert answer.status_code == 401
    assert "token" in answer.text
    assert read == []


def test_the_pages_themselves_ask_for_the_token_too(service: Service) -> None:
    pages = Pages(service.folder, KEY.public, certificate_pem(AUTHORITY.certificate), predict=service.predict)

    async def send() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(pages), base_url="https://test") as client:
            return await client.post(PATH, content=png())

    answer = asyncio.run(send())
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")


def test_an_operator_may_let_everybody_in(service: Service) -> None:
    assert service.predict is not None
    service.predict.token = None
    assert service.ask("POST", PATH, png(), token=None).status_code == 200


def test_a_body_that_is_too_large_is_refused(service: Service) -> None:
    assert service.ask("POST", PATH, b"x" * (LARGEST_BODY + 1)).status_code == 413


def bomb(columns: int, rows: int) -> bytes:
    """A small PNG that says it has many pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", columns, rows, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1 << 20))) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("columns", "rows"), [(60_000, 60_000), (MOST_PIXELS, 2), (4000, 3001)])
def test_a_picture_that_would_grow_without_end_is_refused_by_its_header(service: Service, columns: int, rows: int) -> None:
    began = time.process_time()
    answer = service.ask("POST", PATH, bomb(columns, rows))
    assert answer.status_code in (413, 415)
    assert time.process_time() - began < 5


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 415),
        (b"GIF89a" + bytes(100), 415),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415),
        (png()[:200], 422),
        (png(8, 8), 422),
        (bomb(300, 300)[:80], 422),
    ],
)
def test_what_is_no_whole_picture_gets_a_sentence(service: Service, content: bytes, status: int) -> None:
    answer = service.ask("POST", PATH, content)
    assert answer.status_code == status
    assert answer.json()["error"].endswith(".")


def test_only_so_many_pictures_wait_and_one_is_looked_at(service: Service) -> None:
    looked, together, most = threading.Event(), [0], [0]

    def slow(picture: Any) -> list[Any]:
        together[0] += 1
        most[0] = max(most[0], together[0])
        looked.wait(10)
        together[0] -= 1
        return []

    assert service.predict is not None
    service.predict.predictor = Predictor(service.folder.registry, KEY.public, Finder(slow))
    app = service.app

    async def send(address: str) -> int:
        transport = httpx.ASGITransport(app, client=(address, 1))
        async with httpx.AsyncClient(transport=transport, base_url="https://test", timeout=60) as client:
            return (await client.post(PATH, content=png(), headers={"authorization": f"Bearer {TOKEN}"})).status_code

    async def crowd() -> list[list[int]]:
        tasks = [[asyncio.create_task(send(f"192.0.2.{one}")) for _ in range(PER_ADDRESS + 1)] for one in range(3)]
        everybody = [task for one in tasks for task in one]
        while len([task for task in everybody if task.done()]) < len(everybody) - MOST_WAITING:
            await asyncio.sleep(0.01)
        looked.set()
        return [[await task for task in one] for one in tasks]

    codes = asyncio.run(crowd())
    assert sorted(code for one in codes for code in one) == [200] * MOST_WAITING + [503] * (3 * (PER_ADDRESS + 1) - MOST_WAITING)
    assert all(one.count(200) <= PER_ADDRESS for one in codes)
    assert most == [1]


def test_an_answer_with_a_picture_holds_its_places_until_it_is_taken(service: Service) -> None:
    assert service.predict is not None
    app, predict, waiting = service.app, service.predict, list[int]()
    content = cv2.imencode(".png", np.random.default_rng(1).integers(0, 256, (300, 300, 3), dtype=np.uint8))[1].tobytes()
    headers = [(b"authorization", f"Bearer {TOKEN}".encode()), (b"accept", b"image/png")]
    scope = {"type": "http", "method": "POST", "path": PATH, "headers": headers, "query_string": b"", "client": ("192.0.2.1", 1)}

    async def ask(read: asyncio.Event) -> tuple[int, list[int]]:
        status, sizes = 0, list[int]()

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": content, "more_body": False}

        async def send(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                return
            if sizes and status == 200:  # as uvicorn: the first piece fills what a connection may hold
                waiting.append(1)
                await read.wait()
            sizes.append(len(message["body"]))

        await app(dict(scope), receive, send)
        return status, sizes

    async def crowd() -> None:
        read, at_once = asyncio.Event(), asyncio.Event()
        at_once.set()
        slow = [asyncio.create_task(ask(read)) for _ in range(PER_ADDRESS)]
        while len(waiting) < PER_ADDRESS:
            await asyncio.sleep(0.01)
        assert (await ask(at_once))[0] == 503
        assert predict._waiting == PER_ADDRESS
        read.set()
        for status, sizes in await asyncio.gather(*slow):
            assert status == 200
            assert max(sizes) <= CHUNK < sum(sizes)
        assert predict._waiting == 0
        assert (await ask(at_once))[0] == 200

    asyncio.run(asyncio.wait_for(crowd(), 60))


@pytest.mark.parametrize("on", [False, True])
def test_the_first_page_says_whether_the_server_is_sent_pictures(service: Service, on: bool) -> None:
    page = (service if on else Service(service.folder, None)).ask("GET", "/").text
    sees, sees_not = page.split("It can see")[1].split("It cannot see")
    assert ("pictures that somebody sends to <code>/v1/predict</code>: they are looked at and not kept" in sees) == on
    assert ("<li>any face, or how many faces a device has</li>" in sees_not) != on
    assert ("<li>any face that a device learns from, or how many faces a device has</li>" in sees_not) == on


def test_nothing_of_a_picture_is_kept(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    def files() -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in sorted(service.folder.path.rglob("*")) if path.is_file()}

    before = files()
    for _ in range(3):
        service.ask("POST", PATH, png())
        service.ask("POST", PATH, b"no picture")
    assert files() == before
    assert not caplog.records


def test_without_a_model_there_is_no_answer_yet(tmp_path: Path) -> None:
    folder = ServerFolder.prepare(tmp_path)
    service = Service(folder, Predict(Predictor(folder.registry, KEY.public, Finder()), TOKEN))
    answer = service.ask("POST", PATH, png())
    assert (answer.status_code, answer.json()) == (503, {"error": "Nothing is published yet."})


def test_the_description_is_served_and_names_what_is_answered(service: Service) -> None:
    told = service.ask("GET", "/v1/openapi.json").json()
    assert told == json.loads(json.dumps(OPENAPI))
    post = told["paths"][PATH]["post"]
    seen = {200, 401, 413, 415, 422, 503}
    assert {str(code) for code in seen} <= set(post["responses"])
    answer = service.ask("POST", PATH, png()).json()
    schema = post["responses"]["200"]["content"]["application/json"]["schema"]
    assert set(answer) == set(schema["required"])
    assert set(answer["faces"][0]) == set(schema["properties"]["faces"]["items"]["required"])


def test_the_token_is_made_once_and_for_the_operator_alone(tmp_path: Path) -> None:
    token = load_token(tmp_path)
    assert load_token(tmp_path) == token
    assert len(token) >= 40
    assert (tmp_path / "predict.token").stat().st_mode & 0o777 == 0o600


@pytest.fixture(scope="module")
def scene() -> Any:
    from simulation.synthetic_scene import render_scene

    return next(render_scene(1, seed=3, people=2))


def test_the_server_finds_the_boxes_that_the_camera_loop_finds_in_the_same_picture(tmp_path: Path, scene: Any) -> None:
    """What the operator's switch makes, beside what the loop makes where nobody names a detector."""
    folder = ServerFolder.prepare(tmp_path / "server")
    Registry(folder.registry, KEY).publish(weights_of_round(1), tiny_onnx(1), facts_of_round(1))
    predict = _predict(Plan(folder=folder.path, predict="anybody"), folder, KEY.public)
    content = cv2.imencode(".png", scene.picture)[1].tobytes()
    told = Service(folder, predict).ask("POST", PATH, content, token=None).json()
    assert len(told["faces"]) >= 1
    tracks = Tracker(make_detector()).update(scene.picture)
    assert [face["box"] for face in told["faces"]] == [list(track.box) for track in tracks]
    assert [face["score"] for face in told["faces"]] == [round(track.score, 4) for track in tracks]


def test_the_server_shows_the_model_what_the_camera_loop_shows_it(service: Service) -> None:
    """The very inputs, also of a face in bad light, which both give its contrast back."""
    assert classifier.model_inputs is predict.model_inputs is model_inputs
    dark = (np.indices((100, 120)).sum(0) % 23)[:, :, None].repeat(3, 2).astype(np.uint8)
    content = cv2.imencode(".png", dark)[1].tobytes()
    [face] = service.ask("POST", PATH, content).json()["faces"]
    told = list(face["probabilities"].values())
    np.testing.assert_allclose(told, expected(content, BOX), atol=1e-5)
    prepare = Preprocessing()
    assert np.abs(np.subtract(told, said_of(prepare.normalise(prepare.crop(dark, BOX)[None])))).max() > 1e-3
