"""A kind line per emotion, for the overlay: our own short list, or the person's own file.

`fl-client webcam --quotes` shows one under the picture, chosen by the emotion and the time.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from common.emotions import EMOTIONS_8, canonical_emotion
from common.errors import ConfigError

LONGEST = 80
"""Characters of a line; longer ones would not be read in time."""

FILE_LIMIT = 1 << 16
CHANGE_SECONDS = 8.0

OURS: dict[str, tuple[str, ...]] = {
    "neutral": ("Calm is a good place to start.", "Nothing to prove right now.", "Here, and that is enough."),
    "happiness": ("That smile looks good on the day.", "Keep this moment for later.", "Joy likes company."),
    "surprise": ("Well, that was new!", "The world still has tricks left.", "Let it sink in."),
    "sadness": ("It is all right to feel this.", "Be gentle with yourself today.", "This, too, will move on."),
    "anger": ("One slow breath first.", "It matters to you. That is allowed.", "Shoulders down, jaw loose."),
    "disgust": ("Not everything has to be liked.", "Fresh air helps.", "A firm no is fine."),
    "fear": ("You have come through hard things before.", "Feet on the floor, one breath.", "Small steps count."),
    "contempt": ("Perhaps there is more to the story.", "Curiosity is lighter to carry.", "Nobody is only one thing."),
}


@dataclass(frozen=True)
class Quotes:
    """Lines by canonical emotion; an emotion may have none."""

    lines: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: OURS)

    def line(self, emotion: str, seconds: float) -> str:
        """The line for `emotion` at `seconds` of the source's time; the next one follows after some seconds. "" for none."""
        lines = self.lines.get(emotion, ())
        return lines[int(max(0.0, seconds) / CHANGE_SECONDS) % len(lines)] if lines else ""


def read_quotes(path: Path) -> Quotes:
    """The person's own lines: `emotion: text`, one per line; empty lines and those that begin with # are left out.

    Raises:
        ConfigError: it cannot be read, or a line is malformed, too long, or names no known emotion.
    """
    try:
        with path.expanduser().open("rb") as file:
            content = file.read(FILE_LIMIT + 1)
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"The quotes {path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"The quotes {path} are not text in UTF-8.") from error
    if len(content) > FILE_LIMIT:
        raise ConfigError(f"The quotes {path} are longer than {FILE_LIMIT // 1024} KiB.")
    found: dict[str, list[str]] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip() and not line.lstrip().startswith("#"):
            emotion, quote = _parsed(line, f"Line {number} of {path}")
            found.setdefault(emotion, []).append(quote)
    if not found:
        raise ConfigError(f"The quotes {path} hold no line such as `happiness: Keep this moment.`")
    return Quotes({emotion: tuple(quotes) for emotion, quotes in found.items()})


def _parsed(line: str, where: str) -> tuple[str, str]:
    name, colon, quote = (part.strip() for part in line.partition(":"))
    emotion = canonical_emotion(name)
    if not colon or not quote:
        raise ConfigError(f"{where} is no `emotion: text`.")
    if emotion is None:
        raise ConfigError(f"{where} names {name!r}; the emotions are {', '.join(EMOTIONS_8)}.")
    if len(quote) > LONGEST:
        raise ConfigError(f"{where} has {len(quote)} characters; {LONGEST} can be read in time.")
    if not quote.isprintable():
        raise ConfigError(f"{where} holds a control character.")
    return emotion, quote
