"""`POST /v1/predict`: a picture in, faces with probabilities out. Off unless the operator asks for it; nothing is stored.

`fl_server.pages` mounts it, `fl_server.service` says who may. The server sees the picture, which the camera page avoids.
"""

import asyncio
import io
import logging
import secrets
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route as WebRoute

from common.errors import DependencyError, ModelError
from common.files import read_token, write_once
from common.identity import PublicKey
from fl_server.gate import Refusal, Route
from fl_server.openapi import OPENAPI, PATH
from fl_server.prediction import Face, Picture, Prediction
from fl_server.seats import Seats
from fl_server.web.downloads import Stream
from models.detector.detectors import Detector
from models.faces.inputs import model_inputs, softmax
from models.faces.picture import LONGEST_SIDE, Unusable, decode_colour
from models.faces.report import Reason
from models.lookout import Lookout
from models.manifest import Manifest
from models.onnx_outputs import only
from models.onnx_session import open_session
from models.published import PublishedModel, newer_than, open_published

log = logging.getLogger("emofl.server")

TOKEN = "predict.token"
LARGEST_BODY = 8 * 2**20
MOST_PIXELS = 12_000_000
SECONDS = 30.0
CHUNK_SECONDS = 20.0
"""A peer that does not take 64 KiB of its answer in this time is left."""
MOST_WAITING, PER_ADDRESS = 8, 4
"""Pictures that are on their way, wait or are looked at, together; one at a time is looked at."""


class Refused(Exception):
    """A request that is answered with a status and one sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status, self.sentence = status, sentence


class Predictor:
    """The registry's newest model and a face detector; used by one thread at a time."""

    def __init__(self, registry: Path, publisher: PublicKey, detector: Detector) -> None:
        self._registry, self._publisher, self._detector = registry, publisher, detector
        self._model: PublishedModel | None = None
        self._session: Any = None
        self._lookout = Lookout(registry)

    def predict(self, content: bytes, whole: bool) -> Prediction:
        """What the newest model says of the faces in a picture.

        Args:
            content: a PNG, JPEG, BMP or WebP file.
            whole: it is a face crop already.

        Raises:
            Refused: it is no picture, too large a one, or there is no model.
        """
        picture = decode(content)
        manifest = self._newest()
        rows, columns = picture.shape[:2]
        side = max(rows, columns)
        square = ((columns - side) // 2, (rows - side) // 2, side, side)
        found = [(square, 1.0)] if whole else [(face.box, face.score) for face in self._detector.detect(picture)]
        if not found:
            return Prediction(manifest, picture, ())
        prepare = manifest.preprocessing.model_copy(update={"crop_margin": 0.0}) if whole else manifest.preprocessing
        inputs = model_inputs(prepare, picture, [box for box, _ in found])
        parts = softmax(np.asarray(self._session.run(["logits"], {"faces": inputs})[0], dtype=np.float32))
        faces = (Face(box, score, part) for (box, score), part in zip(found, parts, strict=True))
        return Prediction(manifest, picture, tuple(faces))

    def _newest(self) -> Manifest:
        self._lookout.look(self._take, partial(log.warning, "No newer model for /v1/predict: %s"))
        if self._model is None:
            raise Refused(503, "Nothing is published yet.")
        return self._model.manifest

    def _take(self) -> None:
        newest = open_published(self._registry, self._publisher) if self._model is None else newer_than(self._model)
        if newest is not None:
            self._session, self._model = _session(newest), newest


def decode(content: bytes) -> Picture:
    """The picture, upright, (H, W, 3) uint8 blue-green-red; its size is known before a pixel is decoded.

    Raises:
        Refused: it is none, is damaged, or has more than `MOST_PIXELS`.
    """
    try:
        with Image.open(io.BytesIO(content), formats=("PNG", "JPEG", "BMP", "WEBP")) as image:
            columns, rows = image.size
    except Exception as error:  # Pillow's decoders raise many kinds on damaged files
        raise Refused(415, "The body is no PNG, JPEG, BMP or WebP picture.") from error
    if columns * rows > MOST_PIXELS:
        raise Refused(413, f"The picture has {columns}x{rows} pixels; {MOST_PIXELS:,} are the most.")
    try:
        return decode_colour(content)
    except Unusable as error:
        if error.reason is Reason.TOO_LARGE:
            raise Refused(413, f"A side of the picture has more than {LONGEST_SIDE:,} pixels.") from error
        raise Refused(422, "The picture is damaged or too small to hold a face.") from error


def _session(model: PublishedModel) -> Any:
    """Runs the model's logits; it has been run once.

    Raises:
        DependencyError: ONNX Runtime cannot run it.
        ModelError: it is no ONNX file, or does not answer as its manifest promises.
    """
    manifest = model.manifest
    try:
        session = open_session(only(model.onnx_bytes(), "logits"), f"The model {manifest.version}")
    except ModelError as error:
        raise ModelError(f"{manifest.version}: {error}") from error
    size = manifest.preprocessing.size
    try:
        made = session.run(["logits"], {"faces": np.zeros((2, 1, size, size), dtype=np.float32)})[0].shape
    except Exception as error:  # onnxruntime's own exceptions share no public base class
        raise DependencyError(f"The model {manifest.version} cannot be run: {str(error).splitlines()[0]}") from error
    if made != (2, len(manifest.model.classes)):
        raise ModelError(f"The model {manifest.version} answers {made} for two faces, which its manifest does not promise.")
    return session


@dataclass
class Predict:
    """The HTTP side.

    Attributes:
        predictor: does the work, in one thread.
        token: that a request must bear; None lets everybody in.
    """

    predictor: Predictor
    token: str | None
    _thread: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "predict"))
    _waiting: int = 0
    _guard: threading.Lock = field(default_factory=threading.Lock)

    def posts(self) -> dict[str, Route]:
        """For the gate: it asks for the token before a byte of the body is read, then reads only so much, for only so long."""
        return {PATH: Route(LARGEST_BODY, SECONDS, seats=Seats(MOST_WAITING, PER_ADDRESS), admit=self._admit)}

    def routes(self) -> list[WebRoute]:
        """For the pages."""
        return [
            WebRoute(PATH, self._answer, methods=["POST"]),
            WebRoute("/v1/openapi.json", self._describe, methods=["GET"]),
        ]

    def _admit(self, path: str, headers: Mapping[str, str]) -> Refusal | None:
        if self.token is None:
            return None
        given = headers.get("authorization", "").removeprefix("Bearer ").encode()
        return None if secrets.compare_digest(given, self.token.encode()) else Refusal(401, "token-needed")

    async def _describe(self, request: Request) -> Response:
        return JSONResponse(OPENAPI, headers={"cache-control": "no-cache"})

    async def _answer(self, request: Request) -> Response:
        refusal = self._admit(request.url.path, request.headers)
        if refusal is not None:
            return _sentence(refusal.status, "A token is needed: Authorization: Bearer TOKEN.")
        with self._guard:
            if self._waiting >= MOST_WAITING:
                return _sentence(503, "Too many pictures are waiting; try again in a second.")
            self._waiting += 1
        streams = False
        try:
            content = await request.body()
            whole = request.query_params.get("whole") in ("1", "true")
            wants_png = request.headers.get("accept", "").split(",")[0].split(";")[0].strip() == "image/png"
            work = partial(self._work, content, whole, wants_png)
            body, media = await asyncio.get_running_loop().run_in_executor(self._thread, work)
            if media is None:
                return JSONResponse(body, headers={"cache-control": "no-store"})
            # A picture may be large: its places, here and at the gate, are held until it is taken.
            answer = Response(body, media_type=media, headers={"cache-control": "no-store"})
            streamed = Stream.of(answer, CHUNK_SECONDS, self._leave)
            streams = True
            return streamed
        except Refused as error:
            return _sentence(error.status, error.sentence)
        finally:
            if not streams:
                self._leave()

    def _leave(self) -> None:
        with self._guard:
            self._waiting -= 1

    def _work(self, content: bytes, whole: bool, png: bool) -> tuple[Any, str | None]:
        prediction = self.predictor.predict(content, whole)
        return (prediction.as_png(), "image/png") if png else (prediction.as_json(), None)


def load_token(folder: Path) -> str:
    """The server's token for predictions, made once, readable by its owner alone."""
    path = folder / TOKEN
    write_once(path, secrets.token_urlsafe(32).encode(), mode=0o600)
    return read_token(path)


def _sentence(status: int, sentence: str) -> Response:
    headers = {"cache-control": "no-store"} | ({"retry-after": "1"} if status == 503 else {})
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    return JSONResponse({"error": sentence}, status, headers)
