"""Flower's log, kept to what matters. Every process that runs Flower calls `log_to` once, before anything is logged.

Flower prints in colour to stderr, and a second time through whatever else is set up.
"""

import logging
from typing import TextIO

LIBRARIES = ("httpx", "httpcore", "sqlalchemy", "alembic", "uvicorn", "asyncio")


def log_to(stream: TextIO, flower: int, form: str = "%(asctime)s %(levelname)s %(message)s") -> None:
    """Send the log of this process to `stream`: ours from INFO, Flower's from `flower`, its libraries' from WARNING."""
    logging.raiseExceptions = False  # a log on a full disk must not fill the terminal with its own tracebacks
    logging.basicConfig(level=logging.INFO, stream=stream, force=True, format=form, datefmt="%Y-%m-%d %H:%M:%S")
    flwr = logging.getLogger("flwr")
    flwr.handlers.clear()
    flwr.propagate = True
    flwr.setLevel(flower)
    for name in LIBRARIES:
        logging.getLogger(name).setLevel(logging.WARNING)
