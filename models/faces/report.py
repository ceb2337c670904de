"""What a loader used and what it left out, with the reason: one sentence, or a table for the terminal.

Every loader of `models.faces` returns one of these beside its faces, so that nothing is dropped in silence.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import groupby

from rich.console import Console, ConsoleOptions, RenderResult
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from models.faces.faceset import FaceSet

NAMES_IN_SENTENCE = 3
"""So many files of each reason are named in the sentence; the table names all."""


class Reason(StrEnum):
    """Why something in a face folder is not used; reports list them in this order."""

    BROKEN = "broken or cut short"
    EMPTY = "empty"
    TOO_SMALL = "too small"
    TOO_LARGE = "too large"
    BLANK = "a single colour"
    COPY = "exact copy of another file"
    CONTRADICTION = "exact copies under different emotions"
    NOT_AN_IMAGE = "not a png, jpg, jpeg, bmp or webp"
    UNREADABLE = "cannot be opened"
    UNUSED_EMOTION = "emotion that the model does not have"
    UNKNOWN_FOLDER = "folder that names no emotion"
    NESTED_FOLDER = "folder inside an emotion's folder"
    NO_EMOTION = "outside the emotions' folders"
    LINK = "link, not followed"
    HIDDEN = "hidden"


@dataclass(frozen=True)
class LeftOut:
    """One file or folder that is not used.

    Attributes:
        path: relative to the face folder, printable; a folder ends in a slash.
        reason: why.
        detail: more about it, such as a size in pixels, or "".
    """

    path: str
    reason: Reason
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.path}: {self.detail}" if self.detail else self.path


@dataclass(frozen=True)
class FolderReport:
    """What `models.faces.folder` made of a face folder. `rich` prints it as two tables.

    Attributes:
        folder: the folder's name as the person gave it, printable.
        used: (emotion, number of usable faces) in the order of the model's classes, zeros included.
        left_out: everything else below the folder.
    """

    folder: str
    used: tuple[tuple[str, int], ...]
    left_out: tuple[LeftOut, ...]

    @property
    def usable(self) -> int:
        """Number of usable faces."""
        return sum(count for _, count in self.used)

    @property
    def sentence(self) -> str:
        """All of it in one sentence; of each reason the number and the first few names."""
        counts = ", ".join(f"{name} {count}" for name, count in self.used if count)
        used = f"{self.folder}: {_plural(self.usable, 'usable face')}" + (f" ({counts})" if counts else "")
        return f"{used}; {self.left_out_phrase}."

    @property
    def left_out_phrase(self) -> str:
        """The sentence's second half, without a full stop."""
        if not self.left_out:
            return "nothing left out"
        parts = []
        for reason, things in self._by_reason():
            names = [str(thing) for thing in things[:NAMES_IN_SENTENCE]]
            if more := len(things) - len(names):
                names.append(f"and {more} more")
            parts.append(f"{reason}: {len(things)} ({', '.join(names)})")
        return "left out: " + "; ".join(parts)

    def _by_reason(self) -> Iterator[tuple[Reason, list[LeftOut]]]:
        order = list(Reason)
        for reason, things in groupby(sorted(self.left_out, key=lambda t: order.index(t.reason)), lambda t: t.reason):
            yield reason, list(things)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        most = max([count for _, count in self.used], default=0)
        faces = Table("emotion", title=Text(f"{_plural(self.usable, 'usable face')} in {self.folder}"))
        faces.add_column("faces", justify="right")
        faces.add_column("share", justify="right")
        faces.add_column("balance (against the largest)")
        for name, count in self.used:
            share = f"{count / self.usable:.1%}" if self.usable else "-"
            faces.add_row(name, f"{count:,}", share, ProgressBar(total=most or 1, completed=count, width=30))
        yield faces
        if not self.left_out:
            yield Text("Nothing was left out.")
            return
        rest = Table("why", "what", title=Text(f"{len(self.left_out):,} left out"))
        for reason, things in self._by_reason():
            rest.add_row(f"{reason} ({len(things):,})", Text("\n".join(str(thing) for thing in things), overflow="fold"))
            rest.add_section()
        yield rest


@dataclass(frozen=True)
class RowReport:
    """What a loader made of a CSV file.

    Attributes:
        source: which rows of which file, such as "fer2013.csv (PublicTest)".
        rows: rows of the asked-for usage.
        left_out: (reason, number of rows) for each reason that applied.
    """

    source: str
    rows: int
    left_out: tuple[tuple[str, int], ...]

    @property
    def used(self) -> int:
        """Number of rows that became faces."""
        return self.rows - sum(count for _, count in self.left_out)

    @property
    def sentence(self) -> str:
        """All of it in one sentence."""
        reasons = ", ".join(f"{reason}: {count:,}" for reason, count in self.left_out)
        return f"{self.source}: {self.used:,} of {self.rows:,} faces used; " + (
            f"left out: {reasons}." if reasons else "nothing left out."
        )

    def without(self, reason: str, count: int) -> "RowReport":
        """This report with `count` more rows left out for `reason`."""
        return replace(self, left_out=(*self.left_out, (reason, count))) if count else self


def printable(name: str) -> str:
    """A file's name as it can be shown: control characters and undecodable bytes become a replacement sign."""
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return "".join(letter if letter.isprintable() else "�" for letter in text)


def faces_by_class(faces: FaceSet) -> tuple[tuple[str, int], ...]:
    """(emotion, number of faces) in class order."""
    return tuple(faces.counts().items())


def _plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + ("" if count == 1 else "s")
