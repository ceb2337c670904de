"""What the keys of the window mean, and what they have switched on. `screen.py` reads the keys."""

from dataclasses import dataclass, replace
from enum import Enum
from typing import Self

from fl_client.webcam.window import QUIT


class Action(Enum):
    """What a key does beyond switching a part of the view."""

    QUIT = "quit"
    PAUSE = "pause"
    SNAPSHOT = "snapshot"
    RECORD = "record"


KEYS = (
    ("?", "this help"),
    ("space", "pause and go on"),
    ("h", "heatmap: where the model looks"),
    ("m", "mirror"),
    ("i", "numbers of the faces"),
    ("t", "a line of text per emotion"),
    ("s", "snapshot (a .png)"),
    ("r", "record, and stop (.mp4 and table)"),
    ("q", "quit"),
)
"""Each key and what it does, as the help shows them."""

ACTIONS = {QUIT: Action.QUIT, "q": Action.QUIT, " ": Action.PAUSE, "s": Action.SNAPSHOT, "r": Action.RECORD}


@dataclass(frozen=True)
class View:
    """What the person wants to see.

    Attributes:
        heatmap: where in the face the model finds what it says.
        mirror: as in a mirror; what the model sees stays as it is.
        numbers: the number of each face, the same from frame to frame.
        quotes: a line of text for the emotion of the largest face.
        help: the keys.
    """

    heatmap: bool = False
    mirror: bool = False
    numbers: bool = False
    quotes: bool = False
    help: bool = False

    def pressed(self, key: str) -> Self | None:
        """The view after `key`; None when it switches nothing here."""
        if (name := SWITCHES.get(key.lower())) is None:
            return None
        return replace(self, **{name: not getattr(self, name)})


PLAIN_VIEW = View()

SWITCHES = {"h": "heatmap", "m": "mirror", "i": "numbers", "t": "quotes", "?": "help"}


def action(key: str) -> Action | None:
    """What `key` does; None for one that does nothing or switches the view."""
    return ACTIONS.get(key if key == QUIT else key.lower())
