"""The camera page's files over HTTP: compressed once, with the headers that keep pictures in the page.

`fl_server.pages` and `fl_client.webcam.serving` add `CameraSite.routes()` to theirs, beside `/models/...` and `/style.css`.
"""

import gzip
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from common.canonical import encode, sha256

STATIC, RUNTIME = Path(__file__).parent / "static", Path(__file__).parent / "runtime"
PARTS = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
"""Of onnxruntime-web, each compressed by brotli; `fetch_runtime` puts them there."""
IMPORTED = (
    "ask.js",
    "memory.js",
    "overlay.js",
    "page.js",
    "promise.js",
    "runner.js",
    "speed.js",
    "stage.js",
    "verify.js",
    "webcam.js",
)
"""By camera.js, or by what it imports: the page asks for them at once."""
SCRIPTS = tuple(sorted(path.name for path in STATIC.glob("*.js")))

HEADERS: Mapping[str, str] = {
    "content-security-policy": "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; connect-src 'self'; "
    "style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-embedder-policy": "require-corp",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(self), geolocation=(), microphone=()",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}
"""Of every answer of this site. The isolation (opener, embedder) is what threads in WebAssembly need."""

TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".mjs": "text/javascript; charset=utf-8",
    ".onnx": "application/octet-stream",
    ".sig": "application/octet-stream",
    ".svg": "image/svg+xml",
    ".wasm": "application/wasm",
}
SMALLEST_COMPRESSED = 1024
BROTLI_NEEDED = b"This file is sent compressed by brotli alone: ask with Accept-Encoding: br, as browsers do over HTTPS.\n"


class File:
    """One file, with its content as it is and compressed.

    Args:
        content: as it is; or, with `packed`, compressed by brotli.
        unpacks: whether a packed file is also given to who takes no brotli; where not, the answer is 406.
    """

    def __init__(self, name: str, content: bytes, packed: bool = False, unpacks: bool = False) -> None:
        self.media = TYPES[Path(name).suffix]
        self._packed, self._unpacks = content if packed else None, unpacks
        if not packed:
            self.plain = content
        self.etag = f'"{sha256(content)}"'

    def __eq__(self, other: object) -> bool:
        return isinstance(other, File) and self.etag == other.etag

    def __hash__(self) -> int:
        return hash(self.etag)

    @cached_property
    def plain(self) -> bytes:
        """The content as it is."""
        import brotli  # type: ignore[import-untyped]

        return bytes(brotli.decompress(self._packed or b""))

    def pack(self) -> Self:
        """Compress now, so that the first visitor need not wait."""
        if self._packed is None and len(self.plain) >= SMALLEST_COMPRESSED:
            _ = self._gzip
        return self

    @cached_property
    def _gzip(self) -> bytes:
        return gzip.compress(self.plain, 6 if len(self.plain) > 1 << 20 else 9, mtime=0)

    def answer(self, request: Request) -> Response:
        """To GET or HEAD."""
        headers = {"etag": self.etag, "vary": "accept-encoding", **HEADERS}
        known = [word.strip().removeprefix("W/") for word in request.headers.get("if-none-match", "").split(",")]
        if self.etag in known:
            return Response(status_code=304, headers=headers)
        headers["content-type"] = self.media
        taken = _codings(request)
        if self._packed is not None and "br" in taken:
            return Response(self._packed, headers=headers | {"content-encoding": "br"})
        if self._packed is not None and not self._unpacks:
            return Response(
                BROTLI_NEEDED, 406, {**HEADERS, "vary": "accept-encoding", "content-type": "text/plain; charset=utf-8"}
            )
        if self._packed is None and "gzip" in taken and len(self.plain) >= SMALLEST_COMPRESSED:
            return Response(self._gzip, headers=headers | {"content-encoding": "gzip"})
        return Response(self.plain, headers=headers)


def _codings(request: Request) -> set[str]:
    """What the browser says that it takes; a weight of 0 is a no."""
    words = (word.lower().replace(" ", "").partition(";q=") for word in request.headers.get("accept-encoding", "").split(","))
    return {name for name, _, weight in words if not weight or weight.strip("0.")}


Send = Callable[[Request, Response], Awaitable[Response]]
"""Given a request and its answer, says how it is sent, such as in chunks."""


async def _as_it_is(request: Request, answer: Response) -> Response:
    return answer


@dataclass(frozen=True)
class Detection:
    """The face detector for the browser.

    Attributes:
        spec: what `detector.js` needs to know of it, as JSON.
        onnx: the network.
    """

    spec: Mapping[str, object]
    onnx: bytes


class CameraSite:
    """The page and its files, read once.

    Args:
        server: whether it stands beside a server's other pages, to which it then links, and
            gives the runtime out packed alone.
            On one's own machine it is unpacked, too: some browsers take brotli over HTTPS only.
        detection: None makes the page ask for a face in the middle.
    """

    def __init__(self, server: bool, detection: Detection | None = None) -> None:
        environment = Environment(loader=FileSystemLoader(STATIC), autoescape=True, undefined=StrictUndefined, trim_blocks=True)
        runtime = {part: RUNTIME / f"{part}.br" for part in PARTS}
        self.complete = all(path.is_file() for path in runtime.values())
        """Whether the runtime is there; without it the page says so and loads no model."""
        page = environment.get_template("camera.html").render(server=server, runtime=self.complete, imported=IMPORTED)
        self._files = {
            "/camera": File("camera.html", page.encode()),
            **{f"/camera/{name}": File(name, (STATIC / name).read_bytes()) for name in ("camera.css", *SCRIPTS)},
            **{name: File(name, (STATIC / name[1:]).read_bytes()) for name in ("/style.css", "/favicon.svg")},
        }
        if self.complete:
            self._files |= {
                f"/camera/runtime/{part}": File(part, path.read_bytes(), True, not server) for part, path in runtime.items()
            }
        if detection is not None:
            self._files["/camera/detector.json"] = File("detector.json", encode(dict(detection.spec)))
            self._files["/camera/detector.onnx"] = File("detector.onnx", detection.onnx)

    def routes(self, send: Send = _as_it_is) -> list[Route]:
        """For a Starlette application: /camera, /camera/..., /style.css and /favicon.svg."""

        async def answer(request: Request) -> Response:
            return await send(request, self._files[request.url.path].answer(request))

        return [Route(path, answer, methods=["GET"]) for path in self._files]
