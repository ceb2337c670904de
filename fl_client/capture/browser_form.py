"""Capture in the owner's browser: a page on 127.0.0.1 with the browser's camera. `fl-client capture --browser` runs it.

Pictures go from the page to this process on the same machine and nowhere else. The page is a face for `Studio`: it sends frames
and wishes, and shows what comes back.
"""

import asyncio
import json
import socket
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from io import BytesIO
from pathlib import Path
from typing import Any

import uvicorn
from PIL import Image
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from common.emotions import EMOTIONS_8
from common.errors import ConfigError, EmoflError, RunError
from common.quiet_http import QUIET_HTTP
from fl_client.capture import consent
from fl_client.capture.album import Stored
from fl_client.capture.gate import Gate, Secrets, refused
from fl_client.capture.session import PROMPTS
from fl_client.capture.studio import Sight, Studio
from models.faces.contact_sheet import sized
from models.faces.picture import Unusable, decode_colour, read_grey
from models.preprocess import Preprocessing

WEB = Path(__file__).parent / "web"
FILES = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/capture.css": ("capture.css", "text/css; charset=utf-8"),
    "/capture.js": ("capture.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}

HOST = "127.0.0.1"
LONGEST_FRAME_SIDE = 4096
LONGEST_WISH = 4096
THUMB = 112


@dataclass
class Booth:
    """What the page's requests do.

    Attributes:
        done: set when the owner ends the session in the page.
    """

    studio: Studio
    keys: Secrets
    now: Callable[[], float] = time.monotonic
    done: threading.Event = field(default_factory=threading.Event)
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

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
            "/api/done": ("POST", self._done),
        }
        routes = [Route(path, _static(*file), methods=["GET"]) for path, file in FILES.items()]
        routes += [Route(path, _guarded(handler), methods=[method]) for path, (method, handler) in handlers.items()]
        return Starlette(routes=routes, middleware=[Middleware(Gate, host=host, keys=self.keys)])

    async def _open(self, request: Request) -> Response:
        key = self.keys.redeem(str((await _wish(request)).get("token", "")))
        if key is None:
            return refused(
                HTTPStatus.UNAUTHORIZED, "This link was used or is too old: take a new one from the terminal (press Enter there)."
            )
        return JSONResponse({"key": key})

    async def _state(self, request: Request) -> Response:
        async with self._lock:
            return JSONResponse(self._facts())

    async def _consent(self, request: Request) -> Response:
        wish = await _wish(request)
        if wish.get("agree") is not True or wish.get("version") != consent.TEXT_VERSION:
            raise ConfigError("Nothing is captured before everybody in the pictures agrees.")
        async with self._lock:
            consent.record(self.studio.album.folder, str(wish.get("people", "")))
            return JSONResponse(self._facts())

    async def _frame(self, request: Request) -> Response:
        if request.headers.get("content-type") not in ("image/png", "image/jpeg"):
            return refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "A frame is a PNG or a JPEG.")
        content = await request.body()
        async with self._lock:
            self._require_consent()
            try:
                return JSONResponse(await run_in_threadpool(self._look, content))
            except Unusable as problem:
                return refused(HTTPStatus.BAD_REQUEST, f"That frame cannot be used: {problem.reason}.")

    def _look(self, content: bytes) -> dict[str, Any]:
        picture = decode_colour(content, LONGEST_FRAME_SIDE)
        sight = self.studio.see(picture, self.now())
        return self._facts() | {"sight": _sight(sight, picture.shape[1], picture.shape[0])}

    async def _act(self, request: Request) -> Response:
        wish = await _wish(request)
        emotion = _emotion(wish.get("emotion"))
        async with self._lock:
            self._require_consent()
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
                grey = await run_in_threadpool(read_grey, stored.path, Preprocessing())
            except Unusable as problem:
                return refused(HTTPStatus.BAD_REQUEST, f"{stored.name} cannot be shown: {problem.reason}.")
        content = BytesIO()
        Image.fromarray(sized(Preprocessing(size=THUMB).whole(grey), THUMB, THUMB)).save(content, "png")
        return Response(content.getvalue(), media_type="image/png")

    async def _edit(self, request: Request) -> Response:
        wish = await _wish(request)
        emotion = _emotion(wish.get("emotion"))
        async with self._lock:
            stored = self._find(wish.get("name"))
            if emotion is None:
                await run_in_threadpool(self.studio.album.delete, stored)
            elif emotion != stored.emotion:
                stored = await run_in_threadpool(self.studio.album.relabel, stored, emotion)
            self.studio.recount()
            return JSONResponse(self._facts() | {"name": stored.name})

    async def _done(self, request: Request) -> Response:
        self.done.set()
        return JSONResponse({})

    def _find(self, name: object) -> Stored:
        stored = self.studio.album.find(name) if isinstance(name, str) else None
        if stored is None:
            raise ConfigError("There is no such picture any more.")
        return stored

    def _require_consent(self) -> None:
        if not consent.is_given(self.studio.album.folder):
            raise ConfigError("Nothing is captured before everybody in the pictures agrees.")

    def _facts(self) -> dict[str, Any]:
        session = self.studio.session.tick(self.now())
        targets = dict(session.targets)
        burst = session.burst
        return {
            "folder": str(self.studio.album.folder),
            "consent": {
                "needed": not consent.is_given(self.studio.album.folder),
                "version": consent.TEXT_VERSION,
                "parts": [list(part) for part in consent.PARTS],
            },
            "emotions": [
                {"name": name, "prompt": PROMPTS[name], "count": session.count(name), "target": targets.get(name, 0)}
                for name in EMOTIONS_8
            ],
            "prompted": session.prompted,
            "prompt": session.prompt,
            "burst": None if burst is None else {"emotion": burst.emotion, "taken": burst.taken, "size": session.rhythm.size},
        }


def serve(studio: Studio, port: int, say: Callable[[str], None]) -> None:
    """Serve the page until the owner ends the session there or presses Ctrl-C.

    Args:
        port: on 127.0.0.1; 0 takes a free one.

    Raises:
        RunError: the port is taken.
    """
    keys = Secrets()
    booth = Booth(studio, keys)
    with _listening(port) as listener:
        host = f"{HOST}:{listener.getsockname()[1]}"

        def link() -> str:
            return f"http://{host}/#{keys.new_token()}"

        server = uvicorn.Server(_config(booth.app(host)))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="capture-page", daemon=True)
        thread.start()
        say(f"Open this link in a browser on this machine; it works once:\n\n  {link()}\n")
        say("Enter: another link (the page was closed). Ctrl-C: end.")
        _watch_keyboard(lambda: say(f"  {link()}"))
        try:
            while not booth.done.wait(0.5):
                if not thread.is_alive():
                    raise RunError(f"The page's server on {host} has ended.")
        finally:
            server.should_exit = True
            thread.join(10)


def _config(app: Starlette) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http="h11",
        **QUIET_HTTP,
        limit_concurrency=32,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=2,
    )


def _listening(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, port))
    except OSError as error:
        listener.close()
        raise RunError(f"The page cannot be served on {HOST} port {port}: {error.strerror}. Choose another --port.") from error
    return listener


def _watch_keyboard(on_enter: Callable[[], None]) -> None:
    """A new link for each Enter, if somebody sits at the terminal."""
    if sys.stdin is None or not sys.stdin.isatty():
        return

    def watch() -> None:
        for _ in sys.stdin:
            on_enter()

    threading.Thread(target=watch, name="capture-keyboard", daemon=True).start()


def _static(name: str, media_type: str) -> Callable[[Request], Response]:
    content = (WEB / name).read_bytes()

    def answer(request: Request) -> Response:
        return Response(content, media_type=media_type)

    return answer


def _guarded(handler: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """Our own errors become sentences for the page."""

    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except ClientDisconnect:
            return Response(status_code=HTTPStatus.BAD_REQUEST)
        except EmoflError as error:
            return refused(HTTPStatus.BAD_REQUEST, str(error))
        except OSError as error:
            return refused(HTTPStatus.INTERNAL_SERVER_ERROR, f"It could not be written or read: {error.strerror}.")

    return answer


async def _wish(request: Request) -> dict[str, Any]:
    """The small JSON object that a page sends.

    Raises:
        ConfigError: it is none.
    """
    if request.headers.get("content-type") != "application/json" or int(request.headers["content-length"]) > LONGEST_WISH:
        raise ConfigError("A wish is a small JSON object.")
    try:
        wish = json.loads(await request.body())
        json.dumps(wish, ensure_ascii=False).encode()  # half a surrogate pair is no text
    except (ValueError, RecursionError) as error:
        raise ConfigError("A wish is a small JSON object.") from error
    if not isinstance(wish, dict):
        raise ConfigError("A wish is a small JSON object.")
    return wish


def _emotion(name: object) -> str | None:
    if name is None:
        return None
    if name not in EMOTIONS_8:
        raise ConfigError("There is no such emotion.")
    return str(name)


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
