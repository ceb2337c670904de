"""The pages for people on the HTTPS port: what this server is, how far it is, its models. The gate of `superlink` leads here.

They are for anybody on the network, read-only, and need no script, but for the camera page (`models.web.site`), which has rules
of its own. What may be shown is decided in `fl_server.web.facts`.
"""

import asyncio
import gzip
import json
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from io import BufferedReader, BytesIO
from typing import ParamSpec, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from common.canonical import sha256
from common.certificates import fingerprint, load_certificate
from common.identity import PublicKey
from fl_server.predict import Predict
from fl_server.seats import Seats, network_of
from fl_server.server_folder import ServerFolder
from fl_server.web.downloads import CHUNK, TYPES, Downloads, Limits, OpenFile, Stream
from fl_server.web.facts import FactsReader
from fl_server.web.words import templates, words_of
from models.manifest import MANIFEST, ONNX
from models.web.detection import shipped_detection
from models.web.site import CameraSite

log = logging.getLogger("emofl.server")

FRESH = 1.0
"""Seconds for which one look at the server's folder answers everybody."""
THREADS = 4
SEAT_POLL = 0.1

ALWAYS = {
    "content-security-policy": "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}
"""Headers of every answer, unless it has its own. No HSTS: it would lock out people whose browser does not know the authority."""

HTML = "text/html; charset=utf-8"
FOR_EVER = "public, max-age=31536000, immutable"
ASK_AGAIN = "no-cache"

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class _Rendered:
    start: Response
    models: Response
    status: Response
    newest: str | None


class Pages:
    """ASGI application for GET and HEAD, and for posts of pictures where they are asked for; to be run in one event loop.

    Args:
        publisher: whose signature a version needs to be shown or given out.
        ca_pem: the certificate of the server's authority.
        predict: answers pictures that are posted; None answers none.
    """

    def __init__(
        self,
        folder: ServerFolder,
        publisher: PublicKey,
        ca_pem: bytes,
        limits: Limits | None = None,
        predict: Predict | None = None,
    ) -> None:
        self._limits = limits or Limits()
        self._seats = Seats(self._limits.downloads, self._limits.per_address)
        self._reader, self._downloads = FactsReader(folder, publisher), Downloads(folder.registry, publisher)
        self._templates = templates()
        self._known = {
            "ca_fingerprint": fingerprint(load_certificate(ca_pem)),
            "publisher_fingerprint": publisher.fingerprint,
            "predict": predict is not None,
        }
        # Threads of its own: a crowd that reads pages takes none of those that admit devices.
        self._threads = ThreadPoolExecutor(THREADS, "pages")
        self._looking, self._until, self._trouble = asyncio.Lock(), 0.0, ""
        self._rendered: _Rendered | None = None
        self._packing = asyncio.Lock()
        self._pack: tuple[str, bytes] | None = None
        fixed = {
            "/ca.pem": (ca_pem, "application/pem-certificate-chain", ASK_AGAIN),
            "/models/publisher.pub": (publisher.pem(), "application/x-pem-file", ASK_AGAIN),
            "/healthz": (b"ok\n", "text/plain; charset=utf-8", "no-store"),
        }
        routes = [Route(path, partial(_give, _response(*what))) for path, what in fixed.items()]
        routes += CameraSite(server=True, detection=shipped_detection()).routes(self._seated)
        routes += predict.routes() if predict else []
        routes += [
            Route("/", partial(self._page, "start")),
            Route("/status.json", partial(self._page, "status")),
            Route("/models", partial(_give, RedirectResponse("/models/", 308))),
            Route("/models/", partial(self._page, "models")),
            Route("/models/latest/{file}", self._latest),
            Route("/models/{version}/{file}", self._download),
        ]
        self._app = Starlette(routes=routes, exception_handlers={HTTPException: self._refuse})
        self._app.router.redirect_slashes = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = {name for name, _ in message["headers"]}
                more = ((name.encode(), value.encode()) for name, value in ALWAYS.items())
                message["headers"] = [*message["headers"], *(header for header in more if header[0] not in own)]
            await send(message)

        await self._app(scope, receive, with_headers)

    async def _page(self, name: str, request: Request) -> Response:
        return await _give(getattr(await self._now(), name), request)

    async def _latest(self, request: Request) -> Response:
        newest, name = (await self._now()).newest, request.path_params["file"]
        if newest is None or name not in TYPES:
            raise HTTPException(404)
        return RedirectResponse(f"/models/{newest}/{name}", 302, {"cache-control": ASK_AGAIN})

    def _take_seat(self, request: Request) -> Callable[[], None]:
        """A place among the downloads; what is returned gives it back."""
        address = network_of(request.client.host) if request.client else ""
        if not self._seats.take(address):
            raise HTTPException(503, headers={"retry-after": "5"})
        return partial(self._seats.leave, address)

    async def _seated(self, request: Request, response: Response) -> Response:
        """A large answer in chunks, to as many at a time as downloads; others wait a while for a place."""
        if len(response.body) <= CHUNK or request.method == "HEAD":
            return response
        end = time.monotonic() + self._limits.patience
        while True:
            try:
                return Stream.of(response, self._limits.chunk_seconds, self._take_seat(request))
            except HTTPException:
                if time.monotonic() >= end:
                    raise
            await asyncio.sleep(SEAT_POLL)

    async def _download(self, request: Request) -> Response:
        version, name = request.path_params["version"], request.path_params["file"]
        leave = self._take_seat(request)
        file: OpenFile | None = None

        def done() -> None:
            leave()
            if file is not None:
                file.content.close()

        streams = False
        try:
            file = await self._in_thread(self._downloads.open, version, name)
            if file is None:
                raise HTTPException(404)
            headers = {
                "content-type": TYPES[name],
                "content-length": str(file.size),
                "etag": f'"{file.digest}"',
                "cache-control": FOR_EVER,
            }
            if name == ONNX and "gzip" in request.headers.get("accept-encoding", "") and version == (await self._now()).newest:
                content = await self._packed(file)
                file = OpenFile(BufferedReader(BytesIO(content)), len(content), file.digest)
                headers |= {
                    "content-length": str(file.size),
                    "etag": f'"{file.digest}-gzip"',
                    "content-encoding": "gzip",
                }
            if name == ONNX:
                headers["vary"] = "accept-encoding"
            if name != MANIFEST:
                headers["content-disposition"] = f'attachment; filename="emofl-{version}-{name}"'
            if _is_known(request, headers["etag"]):
                return _not_modified(headers)
            if request.method == "HEAD":
                return Response(headers=headers)
            streams = True
            return Stream(headers, partial(self._in_thread, file.read), self._limits.chunk_seconds, done)
        finally:
            if not streams:
                done()

    async def _packed(self, file: OpenFile) -> bytes:
        """The newest ONNX file compressed, once for everybody: browsers load it on the way to their camera."""
        async with self._packing:
            if self._pack is None or self._pack[0] != file.digest:

                def work() -> bytes:
                    with file.content:
                        return gzip.compress(file.content.read(), 6, mtime=0)

                self._pack = file.digest, await self._in_thread(work)
            else:
                file.content.close()
            return self._pack[1]

    async def _now(self) -> _Rendered:
        async with self._looking:
            if self._rendered is None or time.monotonic() >= self._until:
                try:
                    self._rendered = await self._in_thread(self._render)
                    self._trouble = ""
                except Exception as error:
                    # Whatever is wrong in the folder is logged once, not with every visitor.
                    if repr(error) != self._trouble:
                        self._trouble = repr(error)
                        log.exception("The pages cannot be made.")
                    raise HTTPException(503, headers={"retry-after": "5"}) from error
                self._until = time.monotonic() + FRESH
            return self._rendered

    def _render(self) -> _Rendered:
        facts = self._reader.read()
        words = self._known | {"facts": facts} | words_of(facts)
        start, models = (
            _response(self._templates.get_template(f"{name}.html").render(words, here=name).encode(), HTML, ASK_AGAIN)
            for name in ("index", "models")
        )
        status = json.dumps(facts.as_json(), indent=2, allow_nan=False).encode() + b"\n"
        newest = facts.newest.name if facts.newest else None
        return _Rendered(start, models, _response(status, "application/json", ASK_AGAIN), newest)

    async def _refuse(self, request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        allowed = (getattr(error, "headers", None) or {}).get("Allow", "GET, HEAD")
        heading, sentence = {
            404: ("Not here", "There is no such page, or the registry does not keep this version."),
            405: ("Not this way", f"This address answers {allowed} alone."),
        }.get(status, ("Not now", "The server cannot answer this at the moment; try again in a few seconds."))
        content = self._templates.get_template("error.html").render(heading=heading, sentence=sentence, here="")
        headers = {"cache-control": "no-store"} | dict(getattr(error, "headers", None) or {})
        return Response(content, status, headers, HTML)

    async def _in_thread(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, partial(work, *args, **kwargs))


async def _give(response: Response, request: Request) -> Response:
    headers = dict(response.headers)
    return _not_modified(headers) if _is_known(request, headers.get("etag")) else response


def _response(content: bytes, media: str, cache: str) -> Response:
    return Response(content, headers={"content-type": media, "cache-control": cache, "etag": f'"{sha256(content)}"'})


def _is_known(request: Request, etag: str | None) -> bool:
    given = [word.strip().removeprefix("W/") for word in request.headers.get("if-none-match", "").split(",")]
    return etag is not None and (etag in given or "*" in given)


def _not_modified(headers: dict[str, str]) -> Response:
    return Response(status_code=304, headers={name: headers[name] for name in ("etag", "cache-control")})
