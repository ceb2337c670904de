"""What the capture page asks for in words, read with care, and our own errors as its answers. `Booth` calls it."""

import json
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from common.emotions import EMOTIONS_8
from common.errors import ConfigError, EmoflError
from fl_client.capture.consent import NotGiven
from fl_client.capture.gate import refused
from fl_client.capture.import_desk import NotWaiting

LONGEST_WISH = 4096


def unchanging(path: Path, media_type: str) -> Callable[[Request], Response]:
    """Answers with a file, read now."""
    content = path.read_bytes()

    def answer(request: Request) -> Response:
        return Response(content, media_type=media_type)

    return answer


def guarded(handler: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """The handler, whose errors of ours become sentences for the page."""

    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except ClientDisconnect:
            return Response(status_code=HTTPStatus.BAD_REQUEST)
        except NotGiven as error:
            return JSONResponse({"error": str(error), "consent_needed": True}, HTTPStatus.BAD_REQUEST)
        except NotWaiting as error:
            return refused(HTTPStatus.NOT_FOUND, str(error))
        except EmoflError as error:
            return refused(HTTPStatus.BAD_REQUEST, str(error))
        except OSError as error:
            return refused(HTTPStatus.INTERNAL_SERVER_ERROR, f"It could not be written or read: {error.strerror}.")

    return answer


async def read_wish(request: Request) -> dict[str, Any]:
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


def emotion_of(name: object) -> str | None:
    """One of the eight emotions, or None as it is.

    Raises:
        ConfigError: it is none.
    """
    if name is None:
        return None
    if name not in EMOTIONS_8:
        raise ConfigError("There is no such emotion.")
    return str(name)


def number_of(text: object) -> int:
    """The number of an offered face.

    Raises:
        NotWaiting: it is none.
    """
    if not isinstance(text, str | int) or not str(text).isascii() or not str(text).isdecimal() or len(str(text)) > 9:
        raise NotWaiting("There is no such face any more.")
    return int(text)
