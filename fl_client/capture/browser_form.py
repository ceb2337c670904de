"""Capture in the owner's browser: a page on 127.0.0.1 with the browser's camera. `fl-client capture --browser` runs it.

Pictures go from the page to this process on the same machine and nowhere else.
"""

import socket
import sys
import threading
from collections.abc import Callable

import uvicorn
from starlette.applications import Starlette

from common.errors import RunError
from common.quiet_http import QUIET_HTTP
from fl_client.capture.booth import Booth
from fl_client.capture.gate import Secrets
from fl_client.capture.import_desk import ImportDesk
from fl_client.capture.studio import Studio
from fl_client.loopback import RoomyProtocol

HOST = "127.0.0.1"


def serve(studio: Studio, desk: ImportDesk, port: int, say: Callable[[str], None]) -> None:
    """Serve the page until the owner ends the session there or presses Ctrl-C.

    Args:
        desk: finds faces in photos and films that are chosen in the page.
        port: on 127.0.0.1; 0 takes a free one.

    Raises:
        RunError: the port is taken.
    """
    keys = Secrets()
    booth = Booth(studio, keys, desk)
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
        http=RoomyProtocol,
        **QUIET_HTTP | {"lifespan": "on"},
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
