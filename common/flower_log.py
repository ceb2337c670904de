"""Flower's log, kept to what matters. Every process that runs Flower calls `log_to` once, before anything is logged.

Flower prints in colour to stderr, and a second time through whatever else is set up. It also logs what a peer sends, as long as
it is and as often as it comes: one device could fill the server's disk.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TextIO

LIBRARIES = ("httpx", "httpcore", "sqlalchemy", "alembic", "uvicorn", "asyncio")
PROVOKED = "emofl.provoked"
"""Logger for what a peer can cause as often as it likes; `log_to` has it filtered like Flower's."""

MOST_RECORDS, WINDOW = 5, 60.0
"""Records from one place of the code that pass, in so many seconds."""
MOST_TEXT, MOST_TRACEBACK = 400, 4_000
"""Characters of a record."""


def log_to(
    stream: TextIO,
    flower: int,
    form: str = "%(asctime)s %(levelname)s %(message)s",
    now: Callable[[], float] = time.monotonic,
) -> None:
    """Send the log of this process to `stream`: ours from INFO, Flower's from `flower`, its libraries' from WARNING.

    Args:
        now: seconds, of a clock that only goes forward.
    """
    logging.raiseExceptions = False  # a log on a full disk must not fill the terminal with its own tracebacks
    logging.basicConfig(level=logging.INFO, stream=stream, force=True, format=form, datefmt="%Y-%m-%d %H:%M:%S")
    flwr = logging.getLogger("flwr")
    flwr.handlers.clear()
    flwr.propagate = True
    flwr.setLevel(flower)
    few = Few(now)
    for logger in (flwr, logging.getLogger(PROVOKED)):
        logger.filters.clear()
        logger.addFilter(few)
    for name in LIBRARIES:
        logging.getLogger(name).setLevel(logging.WARNING)


@dataclass
class _Window:
    until: float
    logger: str
    level: int
    passed: int = 0
    left_out: int = 0


class Few(logging.Filter):
    """Lets few records of one place through, each short and in one line; later it says how many it left out.

    Args:
        now: seconds, of a clock that only goes forward.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__()
        self._now = now
        self._guard = threading.Lock()
        self._windows: dict[tuple[str, int], _Window] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record may pass; it is cut on the way."""
        place, now = (record.pathname, record.lineno), self._now()
        with self._guard:
            ended = {key: window for key, window in self._windows.items() if window.until <= now}
            for key in ended:
                del self._windows[key]
            window = self._windows.setdefault(place, _Window(now + WINDOW, record.name, record.levelno))
            passes = window.passed < MOST_RECORDS
            window.passed += passes
            window.left_out += not passes
        for (path, line), window in ended.items():
            if window.left_out:
                _tell(path, line, window)
        if passes:
            _cut(record)
        return passes


def _tell(path: str, line: int, window: _Window) -> None:
    """Past the filters, or it might be left out itself."""
    text, count = "%d more like it from line %d of %s were left out", (window.left_out, line, path)
    logging.getLogger(window.logger).callHandlers(
        logging.LogRecord(window.logger, window.level, path, line, text, count, exc_info=None)
    )


def _cut(record: logging.LogRecord) -> None:
    try:
        text = record.getMessage()
    except Exception:  # the arguments do not fit: the handler would say so, but not who waits for an answer
        text = str(record.msg)
    record.msg, record.args = "".join(letter if letter.isprintable() else " " for letter in _shortened(text, MOST_TEXT)), ()
    if record.exc_info:
        record.exc_text = _shortened(logging.Formatter().formatException(record.exc_info), MOST_TRACEBACK)


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]} ... ({len(text)} characters)"
