"""Hot swap: looks for newer versions in its own thread, builds their session there, and hands it over between frames.

The loop calls `take` once per frame, which costs nothing while there is no news.
"""

import threading
from collections import deque
from collections.abc import Callable

from common.errors import EmoflError, ModelError
from fl_client.webcam.classifier import Classifier
from fl_client.webcam.model import LoopModel, ModelSource

LOOKS_PER_SECOND = 2.0
LONGEST_PAUSE_SECONDS = 5.0
"""Between looks at a registry whose newest version is refused each time."""


class ModelWatcher:
    """Watches a `ModelSource` while the loop runs; used as a context, which starts and ends its thread."""

    def __init__(
        self,
        source: ModelSource,
        current: Classifier,
        build: Callable[[LoopModel], Classifier],
        looks_per_second: float = LOOKS_PER_SECOND,
    ) -> None:
        self._source = source
        self._classes = current.model.classes
        self._build = build
        self._pause = 1 / looks_per_second
        self._failures = 0
        self._next: Classifier | None = None
        self._refusals: deque[str] = deque()
        self._last_refusal = ""
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="model-watcher", daemon=True)

    def __enter__(self) -> "ModelWatcher":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=5.0)

    def look(self) -> None:
        """Look once: a newer version that verifies and runs waits for `take`, any other is refused with a sentence.

        The same refusal is said once, not twice a second.
        """
        try:
            newer = self._source.newer()
            self._failures = 0
            if newer is None:
                return
            if newer.classes != self._classes:
                raise ModelError(f"{newer.version} tells other emotions apart; stop and start again to use it.")
            classifier = self._build(newer)
        except EmoflError as error:
            self._refuse(str(error))
        except Exception as error:
            # whatever a registry on a failing disk throws must not end the loop, nor the watching
            self._refuse(f"The registry could not be read: {error}.")
        else:
            self._last_refusal = ""
            with self._lock:
                self._next = classifier

    def take(self) -> Classifier | None:
        """A newer version that is ready to run, once; None when there is no news."""
        with self._lock:
            classifier, self._next = self._next, None
            return classifier

    def refusals(self) -> list[str]:
        """Why newer versions were refused since the last call, one sentence each."""
        found = []
        while self._refusals:
            found.append(self._refusals.popleft())
        return found

    def _refuse(self, sentence: str) -> None:
        self._failures += 1
        if sentence != self._last_refusal:
            self._last_refusal = sentence
            self._refusals.append(sentence)

    def _until_next_look(self) -> float:
        return float(min(self._pause * 2 ** min(self._failures, 10), LONGEST_PAUSE_SECONDS))

    def _watch(self) -> None:
        while not self._stop.wait(self._until_next_look()):
            self.look()
