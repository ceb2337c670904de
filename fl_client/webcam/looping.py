"""A video that begins again at its end and keeps its own time, in place of a camera. `fl-client webcam --loop` reads it."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from common.errors import ConfigError
from fl_client.webcam.source import Frame, Kind, Source


class LoopingSource:
    """Plays what `open_again` opens, over and over.

    Args:
        open_again: opens the video from its start; called once for each pass.
        now, sleep: the clock that keeps the video's time.

    Raises:
        ConfigError: it is not a video.
    """

    dropped = 0

    def __init__(
        self,
        open_again: Callable[[], Source],
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._open_again, self._now, self._sleep = open_again, now, sleep
        self._current = open_again()
        if self._current.facts.kind is not Kind.VIDEO:
            self._current.close()
            raise ConfigError(f"--loop plays a video again and again; {self._current.facts.name} is none.")
        self.facts = replace(self._current.facts, total=None)

    def frames(self) -> Iterator[Frame]:
        """Every frame of every pass, none before its time."""
        index, began = 0, self._now()
        while True:
            for frame in self._current.frames():
                seconds = index / self.facts.fps
                self._sleep(max(0.0, began + seconds - self._now()))
                yield replace(frame, index=index, seconds=seconds)
                index += 1
            self._current.close()
            self._current = self._open_again()

    def close(self) -> None:
        """Close the pass that is open."""
        self._current.close()
