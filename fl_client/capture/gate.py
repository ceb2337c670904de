"""Who may talk to the capture page's server: this machine's browser, on that very page, with the link's token. Nobody else.

`browser_form` puts it in front of everything. Loopback alone is no fence: any web page that the owner visits can send requests
there, and DNS rebinding makes them look local.
"""

import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

KEY_HEADER = "x-emofl-key"
"""Carries the session's key. Another site's page cannot add a header of its own without leave, which nobody gets."""

PROOF_HEADER = "x-emofl-proof"
"""In answers to a page: who takes the port after this program cannot send it, and the page then sends nothing more."""

MOST_BYTES = 12 * 2**20
"""Of one request's body: a 4K frame as PNG fits."""

ALWAYS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "media-src blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-embedder-policy": "require-corp",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(self), microphone=(), geolocation=(), display-capture=()",
    "cache-control": "no-store",
}
"""Headers of every answer."""

API = "/api/"
OPEN = "/api/open"


@dataclass
class Secrets:
    """The token of the newest link, good once, and the keys of the pages that were opened with one."""

    _token: str | None = None
    _keys: dict[str, str] = field(default_factory=dict)

    def new_token(self) -> str:
        """A token for a link; an earlier one that was not used is void."""
        self._token = secrets.token_urlsafe(32)
        return self._token

    def redeem(self, token: str) -> str | None:
        """A page's key in exchange for the token, once; None for any other."""
        if self._token is None or not hmac.compare_digest(self._token.encode(), token.encode(errors="replace")):
            return None
        self._token = None
        key = secrets.token_urlsafe(32)
        self._keys[key] = secrets.token_urlsafe(32)
        return key

    def holds(self, key: str) -> bool:
        """Whether a page has this key."""
        return self.proof(key) is not None

    def proof(self, key: str) -> str | None:
        """What tells the page with this key that an answer is ours; no request carries it. None for any other key."""
        for known, proof in self._keys.items():
            if hmac.compare_digest(known.encode(), key.encode(errors="replace")):
                return proof
        return None


class Gate:
    """ASGI: what does not come from our own page on `host` is answered here, before anything reads its body."""

    def __init__(self, app: ASGIApp, host: str, keys: Secrets) -> None:
        """As a starlette middleware.

        Args:
            host: as in 127.0.0.1:8123.
        """
        self._app, self._host, self._keys = app, host, keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        if scope["type"] != "http":
            return
        proof = self._keys.proof(Headers(scope=scope).get(KEY_HEADER, ""))
        own = {**ALWAYS, PROOF_HEADER: proof} if proof else ALWAYS
        if (refusal := self._refusal(scope)) is not None:
            await refusal(scope, receive, _with_headers(send, own))
            return
        await self._app(scope, receive, _with_headers(send, own))

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        method, path = scope["method"], scope["path"]
        if headers.getlist("host") != [self._host]:
            return refused(HTTPStatus.MISDIRECTED_REQUEST, "This server answers to its own address only.")
        origin = headers.get("origin")
        if origin is not None and origin != f"http://{self._host}":
            return refused(HTTPStatus.FORBIDDEN, "Another site's page may not ask here.")
        if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            return refused(HTTPStatus.FORBIDDEN, "Another site's page may not ask here.")
        if method == "POST":
            if origin is None:
                return refused(HTTPStatus.FORBIDDEN, "A request that changes something says which page it comes from.")
            if (refusal := _size_refusal(headers)) is not None:
                return refusal
        elif method not in ("GET", "HEAD"):
            return refused(HTTPStatus.METHOD_NOT_ALLOWED, "GET and POST only.")
        if path.startswith(API) and path != OPEN and not self._keys.holds(headers.get(KEY_HEADER, "")):
            return refused(
                HTTPStatus.UNAUTHORIZED, "This page is not open any more: take a new link from the terminal (press Enter there)."
            )
        return None


def refused(status: HTTPStatus, sentence: str) -> Response:
    """An answer that says why."""
    return JSONResponse(
        {"error": sentence}, status, headers={"connection": "close"} if status != HTTPStatus.BAD_REQUEST else None
    )


def _size_refusal(headers: Headers) -> Response | None:
    length = headers.get("content-length", "")
    if "transfer-encoding" in headers or not length.isdecimal():
        return refused(HTTPStatus.LENGTH_REQUIRED, "A request says how long it is.")
    if int(length) > MOST_BYTES:
        return refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"At most {MOST_BYTES // 2**20} MiB at once.")
    return None


def _with_headers(send: Send, own: Mapping[str, str]) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], *((name.encode(), value.encode()) for name, value in own.items())]
        await send(message)

    return sending
