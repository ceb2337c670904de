"""Nobody fills a log through Flower."""

import io
import logging
from collections.abc import Iterator

import pytest

from common.flower_log import LIBRARIES, MOST_RECORDS, MOST_TEXT, MOST_TRACEBACK, PROVOKED, WINDOW, log_to


class Log:
    """What is logged, with a clock that stands still until it is told to go on."""

    def __init__(self) -> None:
        self.seconds, self._stream = 0.0, io.StringIO()
        log_to(self._stream, logging.ERROR, "%(levelname)s %(message)s", lambda: self.seconds)

    @property
    def lines(self) -> list[str]:
        return self._stream.getvalue().splitlines()


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Iterator[Log]:
    """Of this process, as it was before when the test is over."""
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(logging, "raiseExceptions", logging.raiseExceptions)
    for logger in (root, *map(logging.getLogger, ("flwr", PROVOKED, *LIBRARIES))):
        for name in ("level", "propagate"):
            monkeypatch.setattr(logger, name, getattr(logger, name))
        for name in ("handlers", "filters"):
            monkeypatch.setattr(logger, name, list(getattr(logger, name)))
    yield Log()
    monkeypatch.undo()
    for logger in (root, *map(logging.getLogger, ("flwr", PROVOKED, *LIBRARIES))):
        logger.setLevel(logger.level)  # or what is enabled would be remembered from the test


def flood(name: str, times: int) -> None:
    for number in range(times):
        logging.getLogger(name).error("number %d", number)


def test_a_record_of_flowers_is_cut_and_stays_in_one_line(log: Log) -> None:
    logging.getLogger("flwr").error("message_id %s does not exist", "x" * 900_000)
    logging.getLogger("flwr").error("hash a\nERROR forged\r\x1b[2J")
    long, forged = log.lines
    assert long.startswith("ERROR message_id xxx")
    assert long.endswith(" ... (900026 characters)")
    assert len(long) < MOST_TEXT + 50
    assert forged == "ERROR hash a ERROR forged  [2J"


def test_what_flower_logs_that_is_no_text_is_cut_too(log: Log) -> None:
    logging.getLogger("flwr").error({"query": "SELECT", "data": "x" * 10_000})
    logging.getLogger("flwr").error("%d", "no number")
    assert len(log.lines[0]) < MOST_TEXT + 50
    assert log.lines[1] == "ERROR %d"


def test_a_traceback_of_flowers_is_cut(log: Log) -> None:
    try:
        raise ValueError("x" * 100_000)
    except ValueError as error:
        logging.getLogger("flwr").error("failed", exc_info=error)
    assert log.lines[:2] == ["ERROR failed", "Traceback (most recent call last):"]
    assert len("\n".join(log.lines)) < MOST_TRACEBACK + 100


@pytest.mark.parametrize("name", ["flwr", PROVOKED])
def test_of_a_flood_from_one_place_few_records_pass_and_the_rest_is_counted(log: Log, name: str) -> None:
    flood(name, 1_000)
    assert log.lines == [f"ERROR number {number}" for number in range(MOST_RECORDS)]
    log.seconds = WINDOW
    flood(name, 2)
    told, *after = log.lines[MOST_RECORDS:]
    assert told.startswith(f"ERROR {1_000 - MOST_RECORDS} more like it from line ")
    assert told.endswith("test_flower_log.py were left out")
    assert after == ["ERROR number 0", "ERROR number 1"]


def test_a_flood_from_one_place_silences_no_other_place(log: Log) -> None:
    flood("flwr", 100)
    logging.getLogger("flwr").error("something else")
    assert log.lines[-1] == "ERROR something else"
    log.seconds = WINDOW
    logging.getLogger("flwr").error("something else")
    assert len([line for line in log.lines if "left out" in line]) == 1


def test_a_flood_that_goes_on_takes_a_few_lines_a_minute(log: Log) -> None:
    for _ in range(10):
        flood("flwr", 500)
        log.seconds += WINDOW
    assert len(log.lines) <= 10 * (MOST_RECORDS + 1)


def test_our_own_log_is_as_it_was(log: Log) -> None:
    for number in range(2 * MOST_RECORDS):
        logging.getLogger("emofl.server").info("a line\nand another %d %s", number, "x" * 1_000)
    assert len(log.lines) == 4 * MOST_RECORDS
    assert all(len(line) > 1_000 for line in log.lines[1::2])


def test_of_flower_what_is_below_its_level_is_not_logged(log: Log) -> None:
    logging.getLogger("flwr").warning("not this")
    assert log.lines == []
