"""Whether the yes of the people in the pictures still stands, looked at with each request and in between. `Booth` asks here.

`--forget` on another terminal takes it back, and somebody may agree anew before anybody looks again: faces that were seen under
the first yes are dropped all the same.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from common.errors import EmoflError
from fl_client.capture import consent

BETWEEN_LOOKS = 2.0
"""Seconds."""


@dataclass
class Standing:
    """Of one folder.

    Attributes:
        drop: forgets all faces seen so far; called when a yes that was seen is gone.
        yes: the consents that were seen last; none without one to the text as it is now.
    """

    folder: Path
    drop: Callable[[], None]
    yes: tuple[consent.Consent, ...] = ()

    def holds(self) -> bool:
        """Whether there is a yes."""
        given = consent.given(self.folder)
        holds = consent.holds(given)
        if self.yes and not consent.goes_on(self.yes, given):
            self.drop()
        self.yes = given if holds else ()
        return holds

    def require(self) -> None:
        """Refuse to go on without a yes.

        Raises:
            NotGiven: there is none.
        """
        if not self.holds():
            raise consent.NotGiven

    @asynccontextmanager
    async def watched(self, lock: asyncio.Lock) -> AsyncIterator[None]:
        """Looks every `BETWEEN_LOOKS`, also while no page asks for anything; `lock` guards what `drop` forgets."""

        async def watch() -> None:
            while True:
                await asyncio.sleep(BETWEEN_LOOKS)
                async with lock:
                    with suppress(EmoflError, OSError):
                        self.holds()

        watching = asyncio.create_task(watch())
        try:
            yield
        finally:
            watching.cancel()
