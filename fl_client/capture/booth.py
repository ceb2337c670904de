"""What the capture page asks for, answered out of one `Studio` and one `ImportDesk`. `browser_form` serves it.

The page sends frames, photos and wishes, and shows what comes back. Whoever is not that page does not get here: `gate` decides.
"""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from common.emotions import EMOTIONS_8
from common.errors import ConfigError
from fl_client.capture import consent
from fl_client.capture.album import Stored
from fl_client.capture.gate import Gate, Secrets, refused
from fl_client.capture.import_desk import ImportDesk, Offer
from fl_client.capture.labels import Origin
from fl_client.capture.session import PROMPTS
from fl_client.capture.standing import Standing
from fl_client.capture.studio import Sight, Studio
from fl_client.capture.wishes import emotion_of, guarded, number_of, read_wish, unchanging
from models.faces.contact_sheet import sized
from models.faces.picture import LONGEST_SIDE, Unusable, decode_colour, read_grey
from models.faces.report import Reason
from models.preprocess import Preprocessing

WEB = Path(__file__).parent / "web"
SCRIPT, SHEET = "text/javascript; charset=utf-8", "text/css; charset=utf-8"
FILES = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/capture.css": ("capture.css", SHEET),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
    **{f"/{path.name}": (path.name, SCRIPT) for path in sorted(WEB.glob("*.js"))},
}

LONGEST_FRAME_SIDE = 4096
LONGEST_NAME = 1024
THUMB = 112


@dataclass
class Booth:
    """What the page's requests do.

    Attributes:
        done: set when the owner ends the session in the page.
    """

    studio: Studio
    keys: Secrets
    desk: ImportDesk
    now: Callable[[], float] = time.monotonic
    done: threading.Event = field(default_factory=threading.Event)
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def __post_init__(self) -> None:
        self._standing = Standing(self.studio.album.folder, self._drop, self.studio.album.yes)

    def app(self, host: str) -> Starlette:
        """The ASGI application that answers at `host`."""
        handlers: dict[str, tuple[str, Callable[[Request], Awaitable[Response]]]] = {
            "/api/open": ("POST", self._open),
            "/api/state": ("GET", self._state),
            "/api/consent": ("POST", self._consent),
            "/api/frame": ("POST", self._frame),
            "/api/act": ("POST", self._act),
            "/api/pictures": ("GET", self._pictures),
            "/api/picture": ("GET", self._picture),
            "/api/edit": ("POST", self._edit),
            "/api/import": ("POST", self._import),
            "/api/offers": ("GET", self._offers),
            "/api/offer": ("GET", self._offer),
            "/api/decide": ("POST", self._decide),
            "/api/done": ("POST", self._done),
        }
        routes = [Route(path, unchanging(WEB / file[0], file[1]), methods=["GET"]) for path, file in FILES.items()]
        routes += [Route(path, guarded(handler), methods=[method]) for path, (method, handler) in handlers.items()]
        return Starlette(
            routes=routes,
            middleware=[Middleware(Gate, host=host, keys=self.keys)],
            lifespan=lambda _: self._standing.watched(self._lock),
        )

    async def _open(self, request: Request) -> Response:
        key = self.keys.redeem(str((await read_wish(request)).get("token", "")))
        if key is None:
            return refused(
                HTTPStatus.UNAUTHORIZED, "This link was used or is too old: take a new one from the terminal (press Enter there)."
            )
        return JSONResponse({"key": key, "proof": self.keys.proof(key)})

    async def _state(self, request: Request) -> Response:
        async with self._lock:
            return JSONResponse(self._facts())

    async def _consent(self, request: Request) -> Response:
        wish = await read_wish(request)
        if wish.get("agree") is not True or wish.get("version") != consent.TEXT_VERSION:
            raise consent.NotGiven
        async with self._lock:
            self._standing.holds()  # what was seen under a yes that is gone goes before a new one is written
            self.studio.album.open()
            consent.record(self.studio.album.folder, str(wish.get("people", "")))
            self.studio.recount()
            return JSONResponse(self._facts())

    async def _frame(self, request: Request) -> Response:
        if request.headers.get("content-type") not in ("image/png", "image/jpeg"):
            return refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "A frame is a PNG or a JPEG.")
        content = await request.body()
        async with self._lock:
            self._standing.require()
            try:
                return JSONResponse(await run_in_threadpool(self._look, content))
            except Unusable as problem:
                return refused(HTTPStatus.BAD_REQUEST, f"That frame cannot be used: {problem.reason}.")

    def _look(self, content: bytes) -> dict[str, Any]:
        picture = decode_colour(content, LONGEST_FRAME_SIDE)
        sight = self.studio.see(picture, self.now())
        return self._facts() | {"sight": _sight(sight, picture.shape[1], picture.shape[0])}

    async def _act(self, request: Request) -> Response:
        wish = await read_wish(request)
        emotion = emotion_of(wish.get("emotion"))
        async with self._lock:
            self._standing.require()
            studio, said = self.studio, ""
            match wish.get("do"):
                case "take":
                    studio.begin(emotion, self.now())
                case "skip":
                    studio.session = studio.session.skip()
                case "ask" if emotion is not None:
                    studio.session = studio.session.ask_for(emotion)
                case "undo":
                    count = studio.undo()
                    said = f"{count} picture{'s' * (count != 1)} deleted"
                case _:
                    raise ConfigError("A page asks to take, skip, ask or undo.")
            return JSONResponse(self._facts() | {"said": said})

    async def _pictures(self, request: Request) -> Response:
        async with self._lock:
            stored = self.studio.album.pictures()
        return JSONResponse({"pictures": [{"name": one.name, "emotion": one.emotion} for one in stored]})

    async def _picture(self, request: Request) -> Response:
        """A picture, made small and written anew: no file goes out as it is."""
        async with self._lock:
            stored = self._find(request.query_params.get("name"))
            try:
                grey = await run_in_threadpool(read_grey, stored.path)
            except Unusable as problem:
                return refused(HTTPStatus.BAD_REQUEST, f"{stored.name} cannot be shown: {problem.reason}.")
        return _small(Preprocessing(size=THUMB).whole(grey))

    async def _edit(self, request: Request) -> Response:
        wish = await read_wish(request)
        emotion = emotion_of(wish.get("emotion"))
        async with self._lock:
            stored = self._find(wish.get("name"))
            if emotion is None:
                await run_in_threadpool(self.studio.album.delete, stored)
            elif emotion != stored.emotion:
                stored = await run_in_threadpool(self.studio.album.relabel, stored, emotion)
            self.studio.recount()
            return JSONResponse(self._facts() | {"name": stored.name})

    async def _import(self, request: Request) -> Response:
        """A photo, or a frame of a film, in which faces are looked for; its name and folder stand in the address."""
        asked = request.query_params
        name, label, film = asked.get("name", ""), emotion_of(asked.get("label") or None), asked.get("film") == "1"
        if not 0 < len(name) <= LONGEST_NAME:
            raise ConfigError("A photo has a name.")
        content = await request.body()
        async with self._lock:
            self._standing.require()

            def look() -> dict[str, Any]:
                looked = self.desk.look(decode_colour(content, LONGEST_SIDE), name, label, film)
                offers = [_offered(offer) for offer in looked.offers]
                return {"faces": looked.faces, "offers": offers, "left": list(looked.left), "repeated": looked.repeated}

            try:
                found = await run_in_threadpool(look)
                self._standing.require()
                return JSONResponse(found)
            except Unusable as problem:
                status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE if problem.reason is Reason.TOO_LARGE else HTTPStatus.BAD_REQUEST
                return refused(status, f"{problem.reason}{f' ({problem.detail})' if problem.detail else ''}")

    async def _offers(self, request: Request) -> Response:
        async with self._lock:
            self._standing.require()
            return JSONResponse({"offers": [_offered(offer) for offer in self.desk.offers()]})

    async def _offer(self, request: Request) -> Response:
        async with self._lock:
            self._standing.require()
            return _small(self.desk.offer(number_of(request.query_params.get("id"))).face.cut.square)

    async def _decide(self, request: Request) -> Response:
        wish = await read_wish(request)
        emotion = emotion_of(wish.get("emotion"))
        async with self._lock:
            self._standing.require()
            outcome = await run_in_threadpool(self.desk.decide, number_of(wish.get("id")), emotion)
            self.studio.recount()
            stored = outcome.name if isinstance(outcome, Stored) else None
            return JSONResponse(self._facts() | {"stored": stored, "fault": None if stored else outcome})

    async def _done(self, request: Request) -> Response:
        self.done.set()
        return JSONResponse({})

    def _find(self, name: object) -> Stored:
        stored = self.studio.album.find(name) if isinstance(name, str) else None
        if stored is None:
            raise ConfigError("There is no such picture any more.")
        return stored

    def _drop(self) -> None:
        self.desk.clear()
        self.studio.forget()

    def _facts(self) -> dict[str, Any]:
        agreed = self._standing.holds()
        session = self.studio.session.tick(self.now())
        targets = dict(session.targets)
        burst = session.burst
        return {
            "folder": str(self.studio.album.folder),
            "consent": {
                "needed": not agreed,
                "version": consent.TEXT_VERSION,
                "parts": [list(part) for part in consent.PARTS],
            },
            "emotions": [
                {"name": name, "prompt": PROMPTS[name], "count": session.count(name), "target": targets.get(name, 0)}
                for name in EMOTIONS_8
            ],
            "every": self.desk.every,
            "prompted": session.prompted,
            "prompt": session.prompt,
            "burst": None if burst is None else {"emotion": burst.emotion, "taken": burst.taken, "size": session.rhythm.size},
        }


def _sight(sight: Sight, width: int, height: int) -> dict[str, Any]:
    chosen = None if sight.cut is None else sight.detections.index(sight.cut.detection)
    return {
        "width": width,
        "height": height,
        "faces": [list(detection.box) for detection in sight.detections],
        "chosen": chosen,
        "fault": None if sight.fault is None else sight.fault.name.lower(),
        "hint": sight.hint,
        "stored": None if sight.stored is None else sight.stored.name,
    }


def _small(grey: NDArray[np.uint8]) -> Response:
    """(side, side) -> a small PNG."""
    content = BytesIO()
    Image.fromarray(sized(grey, THUMB, THUMB)).save(content, "png")
    return Response(content.getvalue(), media_type="image/png")


def _offered(offer: Offer) -> dict[str, Any]:
    face, label = offer.face, offer.face.label
    return {
        "id": offer.number,
        "name": face.name,
        "emotion": label.emotion if label else None,
        "by": label.origin.value if label else None,
        "sure": label.confidence if label and label.origin is Origin.MODEL else None,
        "alone": face.alone,
    }
