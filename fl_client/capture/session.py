"""Who is asked for what next: targets, counts, prompts and bursts as one value that changes by events. Pure: time comes in.

`Studio` holds the current one; the window, the terminal and the page show it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from common.emotions import EMOTIONS_8

PROMPTS = {
    "neutral": "look as you do when nobody looks",
    "happiness": "look happy",
    "surprise": "look surprised",
    "sadness": "look sad",
    "anger": "look angry",
    "disgust": "look disgusted",
    "fear": "look afraid",
    "contempt": "look down on something",
}
"""What a person is asked to do, by emotion."""

DEFAULT_TARGET = 20


@dataclass(frozen=True)
class Rhythm:
    """How a burst goes.

    Attributes:
        size: pictures at most.
        gap: seconds between two of them at least.
        longest: seconds after which it ends, however few were good enough.
    """

    size: int = 5
    gap: float = 0.4
    longest: float = 8.0


@dataclass(frozen=True)
class Burst:
    """A series of pictures of one emotion, under way."""

    emotion: str
    until: float
    next_at: float
    taken: int = 0


@dataclass(frozen=True)
class Session:
    """Where a session stands.

    Attributes:
        targets: pictures wanted of each emotion, for the emotions that are asked for, in canonical order.
        counts: pictures that there are of every emotion.
        prompted: the emotion that is asked for now; None when all targets are reached.
        burst: the series that is under way, if one is.
    """

    targets: tuple[tuple[str, int], ...]
    counts: tuple[tuple[str, int], ...]
    prompted: str | None = None
    burst: Burst | None = None
    rhythm: Rhythm = Rhythm()

    @classmethod
    def start(cls, targets: Mapping[str, int], counts: Mapping[str, int], rhythm: Rhythm | None = None) -> "Session":
        """A session that goes on from what there is; the emotion that lacks most is asked for first."""
        ordered = tuple((name, targets[name]) for name in EMOTIONS_8 if targets.get(name, 0) > 0)
        everything = tuple((name, counts.get(name, 0)) for name in EMOTIONS_8)
        fresh = cls(ordered, everything, rhythm=rhythm or Rhythm())
        most = max(ordered, key=lambda item: fresh.lacking(item[0]), default=None)
        return replace(fresh, prompted=most[0] if most and fresh.lacking(most[0]) else None)

    @property
    def done(self) -> bool:
        """Every target is reached."""
        return self.prompted is None

    @property
    def prompt(self) -> str:
        """What the person is asked to do now."""
        if self.prompted is None:
            return "all targets are reached"
        return PROMPTS[self.prompted]

    def count(self, emotion: str) -> int:
        """Pictures that there are of it."""
        return dict(self.counts)[emotion]

    def lacking(self, emotion: str) -> int:
        """Pictures still wanted of it."""
        return max(0, dict(self.targets).get(emotion, 0) - self.count(emotion))

    def begin(self, emotion: str | None, now: float) -> "Session":
        """Begin a burst of `emotion` (None: of the one that is asked for, if any) in place of one under way."""
        chosen = emotion or self.prompted
        if chosen is None:
            return self
        prompted = chosen if self.lacking(chosen) else self.prompted
        return replace(self, prompted=prompted, burst=Burst(chosen, now + self.rhythm.longest, now))

    def wants(self, now: float) -> str | None:
        """The emotion of which a picture is to be taken now, or None."""
        burst = self.burst
        return burst.emotion if burst is not None and burst.next_at <= now < burst.until else None

    def took(self, now: float) -> "Session":
        """A picture was stored for the burst, which ends when it is full or reaches the emotion's target."""
        burst = self.burst
        if burst is None:
            return self
        reached = self.lacking(burst.emotion) == 1
        going_on = replace(burst, taken=burst.taken + 1, next_at=now + self.rhythm.gap)
        counted = replace(self._changed(burst.emotion, +1), burst=going_on)
        return counted.ended() if reached or going_on.taken >= self.rhythm.size else counted

    def tick(self, now: float) -> "Session":
        """Time passed: a burst that lasted its longest ends."""
        return self.ended() if self.burst is not None and now >= self.burst.until else self

    def ended(self) -> "Session":
        """The burst ends, and the next emotion that lacks pictures is asked for: a face made anew varies more."""
        return replace(self, burst=None)._moved_on()

    def skip(self) -> "Session":
        """Ask for the next emotion; a burst under way ends."""
        return self.ended()

    def ask_for(self, emotion: str) -> "Session":
        """Ask for `emotion` next, if it is wanted; a burst under way ends."""
        return replace(self, burst=None, prompted=emotion if self.lacking(emotion) else self.prompted)

    def with_counts(self, counts: Mapping[str, int]) -> "Session":
        """The folder changed: pictures were deleted or came in some other way. A burst under way goes on."""
        after = replace(self, counts=tuple((name, counts.get(name, 0)) for name in EMOTIONS_8))
        if after.prompted is None or not after.lacking(after.prompted):
            return after._moved_on()
        return after

    def _changed(self, emotion: str, by: int) -> "Session":
        return replace(self, counts=tuple((name, count + by * (name == emotion)) for name, count in self.counts))

    def _moved_on(self) -> "Session":
        names = [name for name, _ in self.targets]
        at = names.index(self.prompted) + 1 if self.prompted in names else 0
        following = [name for name in names[at:] + names[:at] if self.lacking(name)]
        return replace(self, prompted=following[0] if following else None)
