"""The camera page on one's own machine: `fl-client webcam --serve`. On 127.0.0.1 alone; pictures stay in the browser.

It gives out a model that this device has verified; the page verifies it once more.
"""

import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from common.canonical import sha256
from common.errors import ConfigError, DeviceError, IntegrityError
from common.files import read_plain
from common.places import state_home
from common.quiet_http import QUIET_HTTP
from fl_client.loopback import RoomyProtocol
from fl_client.webcam.choice import BASE
from fl_client.webcam.registry import source_of, wait_for_first
from fl_client.webcam.remembered import remembered
from models.detector import blaze
from models.detector.candidates import SAME_FACE, STRIDE
from models.lookout import Lookout
from models.manifest import CONTEXT, MANIFEST, MANIFEST_LIMIT, ONNX, SIGNATURE
from models.published import PublishedModel, Trust, newer_than, open_published, trusted
from models.web.detection import shipped_detection
from models.web.site import HEADERS, CameraSite, Detection, File

HOST = "127.0.0.1"


BLAZE = {
    "kind": "blaze",
    "longest": blaze.LONGEST_SIDE,
    "threshold": blaze.THRESHOLD,
    "multiple": STRIDE,
    "same": SAME_FACE,
    "values": blaze.VALUES,
    "framing": blaze.FRAMING,
    "levels": [{"scores": scores, "boxes": boxes, "stride": stride} for scores, boxes, stride, _ in blaze.LEVELS],
}
"""What the page needs to know of the detector `blaze`."""


def best_detection() -> Detection | None:
    """BlazeFace where this device's owner fetched it, else the detector that is shipped, else None."""
    path = blaze.network_path()
    if path.is_file() and sha256(content := path.read_bytes()) == blaze.NETWORK_SHA256:
        from models.detector.tflite import onnx_from_tflite  # loads `onnx`, which few need

        return Detection(BLAZE, onnx_from_tflite(content, blaze.OUTPUTS, scale=1 / 127.5, shift=-1.0))
    return shipped_detection()


class VerifiedFiles:
    """The newest version of a registry, or one version, as the page asks for it.

    Args:
        trust: as `models.published.open_published`.
        say: gets a sentence when a newer version is refused.
    """

    def __init__(self, path: Path, trust: Trust | None, say: Callable[[str], None]) -> None:
        self._say = say
        self._guard = threading.Lock()
        self.newest = open_published(path, trust, state=state_home())
        self._files = _files(self.newest)
        self._lookout = Lookout(self.newest.registry or path)
        self._lookout.looked(refused=False)

    def read(self, name: str) -> tuple[str, File] | None:
        """The newest version's name, and one of its files; None for a name that is none of them."""
        with self._guard:
            self._lookout.look(self._take, lambda sentence: self._say(f"{sentence} The model before it stays in use."))
            content = self._files.get(name)
            return None if content is None else (self.newest.manifest.version, content)

    def _take(self) -> None:
        newer = newer_than(self.newest)
        if newer is not None:
            self.newest, self._files = newer, _files(newer)


def _files(model: PublishedModel) -> dict[str, File]:
    """As they are stored, which is what was signed."""
    content, signature = read_plain(model.folder / MANIFEST, MANIFEST_LIMIT), read_plain(model.folder / SIGNATURE, limit=64)
    model.publisher.verify(CONTEXT, content, signature)
    if sha256(content) != model.manifest_sha256:
        raise IntegrityError(f"{model.folder / MANIFEST} has changed while it was read.")
    found = {MANIFEST: content, SIGNATURE: signature, ONNX: model.onnx_bytes()}
    return {name: File(name, content).pack() for name, content in found.items()}


def make_app(files: VerifiedFiles, site: CameraSite) -> Starlette:
    """The page and the model, for requests that name this machine as their host: another name's page cannot read them."""

    def newest(request: Request) -> Response:
        found = files.read(request.path_params["file"])
        if found is None:
            raise HTTPException(404)
        return RedirectResponse(f"/models/{found[0]}/{request.path_params['file']}", 302, HEADERS)

    def version(request: Request) -> Response:
        found = files.read(request.path_params["file"])
        if found is None or found[0] != request.path_params["version"]:
            raise HTTPException(404)
        return found[1].answer(request)

    def publisher(request: Request) -> Response:
        return Response(files.newest.publisher.pem(), headers=HEADERS, media_type="application/x-pem-file")

    def refuse(request: Request, error: Exception) -> Response:
        return PlainTextResponse("Not here.\n", getattr(error, "status_code", 500), HEADERS)

    routes = [
        *site.routes(),
        Route("/", lambda request: RedirectResponse("/camera", 302, HEADERS)),
        Route("/models/publisher.pub", publisher),
        Route("/models/latest/{file}", newest),
        Route("/models/{version}/{file}", version),
    ]
    hosts = Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"], www_redirect=False)
    return Starlette(routes=routes, middleware=[hosts], exception_handlers={HTTPException: refuse})


class LocalPage:
    """The page's server in a thread of its own, from `start` to `stop`; 127.0.0.1 is the only address it knows."""

    def __init__(self, app: ASGIApp, port: int) -> None:
        """Take the port; 0 takes a free one.

        Raises:
            DeviceError: it is taken.
        """
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind((HOST, port))
        except OSError as error:
            self._socket.close()
            raise DeviceError(f"Port {port} of this machine is taken; choose another --port.") from error
        config = uvicorn.Config(
            app,
            loop="asyncio",
            http=RoomyProtocol,
            **QUIET_HTTP,
            timeout_keep_alive=15,
            timeout_graceful_shutdown=1,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]}, daemon=True)

    @property
    def address(self) -> str:
        """For the browser."""
        return f"http://{HOST}:{self._socket.getsockname()[1]}/camera"

    def start(self) -> None:
        """Answer."""
        self._thread.start()
        while not self._server.started and self._thread.is_alive():
            time.sleep(0.02)

    def stop(self) -> None:
        """Answer no more."""
        self._server.should_exit = True
        if self._thread.ident is not None:
            self._thread.join(5)
        self._socket.close()


def serve_page(
    model: Path | None,
    registry: Path | None,
    trust: str | None,
    port: int,
    say: Callable[[str], None],
    wait: Callable[[], object] | None = None,
) -> None:
    """Serve until Ctrl-C.

    Args:
        model: one version's folder.
        registry: whose newest version is given out; where neither is named, the one used last.
        trust: the publisher's key file or fingerprint; None trusts the key that a registry shows first.
        say: gets one sentence at a time.
        wait: returns, or is interrupted, when the page is to end; None waits for Ctrl-C.

    Raises:
        ConfigError: there is no published model to serve.
        IntegrityError: what is there is not what was signed.
        DeviceError: the port is taken.
    """
    if model is None and registry is None:
        registry = remembered()
    if registry is None and (model is None or model == BASE):
        raise ConfigError("--serve shows a published model: name it with --registry FOLDER or --model FOLDER.")
    source_of(model, registry, trust)  # refuses what cannot hold a published model
    if registry is not None:
        wait_for_first(registry, say)
    files = VerifiedFiles(registry or model or Path(), trusted(trust), say)
    page = LocalPage(make_app(files, CameraSite(server=False, detection=best_detection())), port)
    page.start()
    say(f"The camera page is at {page.address}, for browsers on this machine; pictures stay in them. Ctrl-C ends it.")
    try:
        (wait or threading.Event().wait)()
    except KeyboardInterrupt:
        say("The page is closed.")
    finally:
        page.stop()
