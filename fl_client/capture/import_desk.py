"""Faces out of photos and films that are chosen in the capture page: offered with a label, then stored or left out by the owner.

`Booth` calls it. What is offered stands in memory only, and is gone when the session ends.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.errors import ConfigError
from fl_client.capture.album import Album, Stored
from fl_client.capture.face import fault_of
from fl_client.capture.importing import Found, Search
from fl_client.capture.labels import Label, Leave, Origin, Rule, decide, folder_label
from models.faces.report import printable

MOST = 256
"""Faces that wait for a decision at once."""


class NotWaiting(ConfigError):
    """No face of that number waits: it was decided on already, or never was there."""


@dataclass(frozen=True)
class Offer:
    """A face that waits for its owner's word.

    Attributes:
        number: names it until then.
    """

    number: int
    face: Found


@dataclass(frozen=True)
class Looked:
    """What was found in one picture.

    Attributes:
        faces: how many in all.
        offers: those to decide on.
        left: why each other one is not offered.
        repeated: how many were nearly the same as one before in a film.
    """

    faces: int
    offers: tuple[Offer, ...]
    left: tuple[str, ...]
    repeated: int


@dataclass
class ImportDesk:
    """Not for several threads at once.

    Attributes:
        make_search: called at the first picture, and at the first after `clear`.
        every: seconds of a film between two frames that are looked at.
    """

    album: Album
    make_search: Callable[[], Search]
    every: float = 1.0
    _search: Search | None = None
    _waiting: dict[int, Offer] = field(default_factory=dict)
    _made: int = 0

    def look(self, picture: NDArray[np.uint8], name: str, emotion: str | None, film: bool) -> Looked:
        """Look for faces in a (H, W, 3) uint8 picture.

        Args:
            name: of its file, with the folders above it; the nearest one that names an emotion is its label.
            emotion: that the owner says all faces show; None proposes one.
            film: the picture is a frame of a film, of which one like an earlier one is passed over.

        Raises:
            ConfigError: so many faces wait that no more are looked for.
        """
        if len(self._waiting) >= MOST:
            raise ConfigError(f"{MOST} faces wait: decide on them first.")
        self._search = search = self._search or self.make_search()
        label = Label(emotion, Origin.OWNER) if emotion else folder_label(Path(name), Path())
        repeated, faces, offers, left = search.repeated, 0, [], []
        for face in search.in_picture(picture, printable(name), label, film):
            faces += 1
            decision = decide(face.label, search.fault(face, face.label.emotion if face.label else None), face.alone, Rule())
            if isinstance(decision, Leave):
                left.append(decision.why)
            else:
                search.remember(face)
                self._made += 1
                offers.append(Offer(self._made, face))
        self._waiting |= {offer.number: offer for offer in offers}
        again = search.repeated - repeated
        return Looked(faces + again, tuple(offers), tuple(left), again)

    def offers(self) -> list[Offer]:
        """All that wait, in the order in which they were found."""
        return list(self._waiting.values())

    def offer(self, number: int) -> Offer:
        """The one of that number.

        Raises:
            NotWaiting: it was decided on already, or never was.
        """
        if number not in self._waiting:
            raise NotWaiting("There is no such face any more.")
        return self._waiting[number]

    def decide(self, number: int, emotion: str | None) -> Stored | str | None:
        """Store the face under `emotion`, or leave it out (None); it waits no longer. A string says why it is not stored.

        Raises:
            NotWaiting: as `offer`.
            OSError: it cannot be written; it goes on waiting.
        """
        face = self.offer(number).face
        outcome = self._stored(face, emotion) if emotion is not None else None
        del self._waiting[number]
        if emotion is None and self._search is not None:
            self._search.forget(face)
        return outcome

    def clear(self) -> None:
        """Drop every face that waits, and all that is known of faces seen."""
        self._waiting.clear()
        self._search = None

    def _stored(self, face: Found, emotion: str) -> Stored | str:
        fault = fault_of(face.cut, *self.album.nearest(emotion, face.cut.square))
        return str(fault) if fault is not None else self.album.save(emotion, face.cut.square)
