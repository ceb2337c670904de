"""What to do with a found face: take it under a label, leave it out, or ask. Pure; the import and its form call it."""

from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from common.emotions import EMOTIONS_8, canonical_emotion
from fl_client.capture.face import Fault


class Origin(Enum):
    """Where a proposed label comes from."""

    OWNER = "you"
    FOLDER = "its folder"
    MODEL = "the model"


@dataclass(frozen=True)
class Label:
    """A proposed label.

    Attributes:
        confidence: in [0, 1]; 1 unless a model proposes it.
    """

    emotion: str
    origin: Origin
    confidence: float = 1.0


@dataclass(frozen=True)
class Rule:
    """How faces are decided on without asking.

    Attributes:
        accept_above: take proposed labels of at least this confidence, in [0, 1]; None: take none unasked.
        asks: whether somebody is there to ask; else what is not taken is left out.
    """

    accept_above: float | None = None
    asks: bool = True


@dataclass(frozen=True)
class Take:
    """Store the face under `emotion`."""

    emotion: str


@dataclass(frozen=True)
class Leave:
    """Do not store the face; `why` is for the report."""

    why: str


class Ask(Enum):
    """The owner decides."""

    OWNER = "owner"


Decision = Take | Leave | Ask

UNSURE = "the label is not sure enough"
NO_LABEL = "no label"
COMPANY = "other people in the picture"
UNWANTED = "you said no"


def decide(label: Label | None, fault: Fault | None, alone: bool, rule: Rule) -> Decision:
    """What to do with a face.

    A faulty face is never stored. Without asking, a face is stored only if it is alone in its picture: of several people, only
    the owner can say who agreed to be here.
    """
    if fault is not None:
        return Leave(str(fault).split(":")[0])
    if rule.accept_above is not None and label is not None and label.confidence >= rule.accept_above and alone:
        return Take(label.emotion)
    if rule.asks:
        return Ask.OWNER
    if label is None:
        return Leave(NO_LABEL)
    return Leave(UNSURE if alone else COMPANY)


def folder_label(path: Path, root: Path) -> Label | None:
    """The label that the nearest folder between `root` (included) and `path` names, as in `old/happy/1.jpg`."""
    top = root if root.is_dir() else root.parent
    for folder in path.parents:
        if emotion := canonical_emotion(folder.name):
            return Label(emotion, Origin.FOLDER)
        if folder == top:
            break
    return None


def parse_corrections(text: str, faces: int) -> dict[int, str | None] | str:
    """What the owner typed about faces 1 to `faces`: the emotion of each that is named, None for one to leave out.

    `2 s, 3 happy, 5 6` leaves out the second face, takes the third as happiness and the fifth as the sixth emotion. A `-` between
    two numbers names all from one to the other. The answer is one sentence if something is not understood.
    """
    corrections: dict[int, str | None] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        words = part.split()
        span = _span(words[0], faces)
        if len(words) != 2 or span is None:
            return f"{part[:30]!r} is not understood: a number from 1 to {faces}, then s to skip or an emotion's number or name."
        emotion = _emotion(words[1])
        if emotion is None and words[1].lower() not in ("s", "skip"):
            return f"{words[1][:30]!r} is no emotion: {', '.join(f'{n} {name}' for n, name in enumerate(EMOTIONS_8, start=1))}."
        corrections |= dict.fromkeys(span, emotion)
    return corrections


def _span(text: str, faces: int) -> range | None:
    first, _, last = text.partition("-")
    last = last or first
    if not (first.isdecimal() and last.isdecimal() and 1 <= int(first) <= int(last) <= faces):
        return None
    return range(int(first), int(last) + 1)


def _emotion(word: str) -> str | None:
    if word.isdecimal():
        return EMOTIONS_8[int(word) - 1] if 1 <= int(word) <= len(EMOTIONS_8) else None
    return canonical_emotion(word)
