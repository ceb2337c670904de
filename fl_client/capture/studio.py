"""One capture session: frames and wishes go in, good pictures land in the folder. Window, terminal and page all drive this."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from common.canonical import encode
from common.config import Settings
from common.emotions import EMOTIONS_8
from common.errors import IntegrityError
from common.files import read_plain, write_atomic
from fl_client.capture import consent
from fl_client.capture.album import Album, Stored, content_of
from fl_client.capture.face import Cut, Fault, cut_out, fault_of, the_one_face
from fl_client.capture.pose import Pose, advice, pose_of
from fl_client.capture.session import DEFAULT_TARGET, Rhythm, Session
from models.detector.detection import Detection
from models.detector.detectors import Detector
from models.faces.folder import SESSION_FOLDER

TARGETS = "session.json"


class Targets(Settings):
    """How many pictures the owner wanted of each emotion, kept between sessions."""

    targets: dict[str, Annotated[int, Field(ge=0, le=100_000)]]


@dataclass(frozen=True)
class Sight:
    """What one frame shows.

    Attributes:
        detections: every face found.
        cut: the one that may be stored, or None.
        fault: why none is stored, or None.
        stored: the picture that this frame became, or None.
        advice: what would vary the next pictures, or None.
    """

    detections: tuple[Detection, ...]
    cut: Cut | None
    fault: Fault | None
    stored: Stored | None = None
    advice: str | None = None

    @property
    def hint(self) -> str:
        """One line for the person, or ""."""
        return str(self.fault or self.advice or "")


@dataclass
class Studio:
    """Not for several threads at once.

    Attributes:
        margin: part of a box's longer side that the model's preprocessing adds on each side.
        left_out: frames of bursts that were not stored, by reason.
    """

    album: Album
    detector: Detector
    session: Session
    margin: float = 0.0
    left_out: dict[Fault, int] = field(default_factory=lambda: defaultdict(int))
    _poses: dict[str, list[Pose]] = field(default_factory=lambda: defaultdict(list))
    _last: list[tuple[Stored, bytes | None]] = field(default_factory=list)

    def see(self, picture: NDArray[np.uint8], now: float) -> Sight:
        """Look at a (H, W, 3) uint8 frame and, if a burst wants a picture and the face is good, store it.

        Args:
            now: seconds of a clock that never goes back.

        Raises:
            NotGiven: nobody agreed, or `--forget` on another terminal took the yes back, whether or not somebody agreed anew;
                nothing seen before is kept then.
        """
        self.require_consent()
        self.session = self.session.tick(now)
        detections = tuple(self.detector.detect(picture))
        found = the_one_face(detections)
        emotion = self.session.wants(now)
        if isinstance(found, Fault):
            self._count(found, emotion)
            return Sight(detections, None, found)
        cut = cut_out(picture, found, self.margin)
        asked = emotion or self.session.prompted
        fault = fault_of(cut, *self.album.nearest(emotion, cut.square)) if emotion else cut.flaw
        hint = advice(self._poses[asked]) if asked else None
        if fault is not None or emotion is None:
            self._count(fault, emotion)
            return Sight(detections, cut, fault, advice=hint)
        stored = self.album.save(emotion, cut.square)
        self._poses[emotion].append(pose_of(found, picture.shape[0]))
        self._last.append((stored, content_of(stored)))
        self.session = self.session.took(now)
        return Sight(detections, cut, None, stored, advice(self._poses[emotion]))

    def begin(self, emotion: str | None, now: float) -> None:
        """Begin a burst; what `undo` takes back begins here."""
        self._last = []
        self.session = self.session.begin(emotion, now)

    def undo(self) -> int:
        """Delete what the last burst stored, under whatever name and emotion it is now: how many pictures were still there."""
        self.session = self.session.ended() if self.session.burst else self.session
        taken, self._last = self._last, []
        removed = 0
        for stored, content in taken:
            now = self.album.with_content(stored, content) if content is not None else None
            removed += now is not None and self.album.delete(now)
            if poses := self._poses[stored.emotion]:
                poses.pop()
        self.recount()
        return removed

    def require_consent(self) -> None:
        """As `see`; for forms that wait for a key instead of a frame.

        Raises:
            NotGiven: as `see`.
        """
        if not self.album.stands():
            self.forget()
            raise consent.NotGiven

    def forget(self) -> None:
        """Drop what is remembered of faces seen: the burst, what `undo` would take back, poses, fingerprints of pictures gone."""
        self.session = self.session.ended() if self.session.burst else self.session
        self._last = []
        self._poses.clear()
        self.album.read_again()
        self.recount()
        self.album.meet()

    def recount(self) -> None:
        """The folder changed beside the session."""
        self.session = self.session.with_counts(self.album.counts())

    def _count(self, fault: Fault | None, emotion: str | None) -> None:
        if fault is not None and emotion is not None:
            self.left_out[fault] += 1


def open_session(album: Album, emotions: tuple[str, ...], count: int | None, rhythm: Rhythm | None = None) -> Session:
    """A session over the folder as it is; targets that are not given are those of the last one, and are kept for the next.

    Args:
        emotions: that are asked for; none stands for those of the last session, or all.
        count: pictures wanted of each of them.
    """
    before = _read_targets(album.folder)
    named = emotions or tuple(before) or EMOTIONS_8
    targets = {name: count if count is not None else before.get(name, DEFAULT_TARGET) for name in EMOTIONS_8 if name in named}
    if targets != before:
        keep_targets(album.folder, targets)
    return Session.start(targets, album.counts(), rhythm)


def keep_targets(folder: Path, targets: Mapping[str, int]) -> None:
    """Write the targets down for the next session."""
    content = encode(Targets(targets=dict(targets)).model_dump(mode="json"))
    write_atomic(folder / SESSION_FOLDER / TARGETS, content, mode=0o600)


def _read_targets(folder: Path) -> dict[str, int]:
    """The last session's targets; none if there was none, or they cannot be read: they are a convenience."""
    try:
        found = Targets.model_validate_json(read_plain(folder / SESSION_FOLDER / TARGETS, 1 << 16)).targets
    except (IntegrityError, ValidationError):
        return {}
    return {name: count for name, count in found.items() if name in EMOTIONS_8 and count > 0}
