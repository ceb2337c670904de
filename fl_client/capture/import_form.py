"""The owner confirms what was found in photos and films, a page of faces at a time. `fl-client capture --import` runs it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from common.emotions import EMOTIONS_8
from fl_client.capture.album import Album
from fl_client.capture.importing import Found, Search, Tally
from fl_client.capture.labels import UNWANTED, Ask, Label, Leave, Origin, Rule, Take, decide, parse_corrections
from models.faces.contact_sheet import sized

PAGE = 8
QUESTION = "Enter: take them as proposed; corrections as in '1 s, 2 happy' (s: leave out); s: none of them; q: quit"
NUMBERS = ", ".join(f"{number} {name}" for number, name in enumerate(EMOTIONS_8, start=1))
THUMB = 14
RAMP = " .:-=+*#%@"
"""From dark to bright."""


class Quit(Exception):
    """The owner has had enough; what was stored stays."""


@dataclass
class ImportForm:
    """One import on the terminal.

    Attributes:
        ask: shows a line and returns what the person typed; EOFError ends the import as q does.
    """

    search: Search
    album: Album
    rule: Rule
    console: Console
    ask: Callable[[str], str]
    tally: Tally = field(default_factory=Tally)

    def run(self, found: Iterator[Found]) -> None:
        """Decide on every face; each is stored at once, so that stopping midway loses nothing.

        Raises:
            NotGiven: nobody agreed, or `--forget` took the yes back meanwhile.
        """
        self.album.require_yes()
        to_ask = self._undecided(found)
        try:
            while page := list(islice(to_ask, PAGE)):
                self._confirm(page)
        except (Quit, EOFError):
            self.console.print("Stopped; what was stored stays. The same --import goes on: stored faces are not asked for again.")

    def _undecided(self, found: Iterator[Found]) -> Iterator[Found]:
        for face in found:
            fault = self.search.fault(face, face.label.emotion if face.label else None)
            decision = decide(face.label, fault, face.alone, self.rule)
            if decision is Ask.OWNER:
                self.search.remember(face)
                yield face
            elif isinstance(decision, Take):
                self.search.remember(face)
                self._store(face, decision.emotion)
            elif isinstance(decision, Leave):
                self.tally.left[decision.why] += 1

    def _confirm(self, page: list[Found]) -> None:
        self.album.require_yes()
        self.console.print(_table(page, colours=self.console.color_system is not None))
        self.console.print(NUMBERS, soft_wrap=True)
        corrections = self._corrections(len(page))
        for number, face in enumerate(page, start=1):
            proposed = face.label.emotion if face.label else None
            emotion = corrections.get(number, proposed)
            if emotion is None:
                self.search.forget(face)
                self.tally.left[UNWANTED if number in corrections else "no label"] += 1
            elif (fault := self.search.fault(face, emotion)) is not None:
                self.tally.left[str(fault).split(":")[0]] += 1
            else:
                self._store(face, emotion)

    def _corrections(self, faces: int) -> dict[int, str | None]:
        while True:
            typed = self.ask(QUESTION).strip()
            if typed.lower() in ("q", "quit"):
                raise Quit
            if typed.lower() in ("s", "skip"):
                return dict.fromkeys(range(1, faces + 1))
            corrections = parse_corrections(typed, faces)
            if not isinstance(corrections, str):
                return corrections
            self.console.print(escape(corrections), soft_wrap=True)

    def _store(self, face: Found, emotion: str) -> None:
        self.album.save(emotion, face.cut.square)
        self.tally.taken[emotion] += 1


def _table(page: list[Found], colours: bool) -> Table:
    table = Table("no.", "face", "found in", "proposed", show_lines=True)
    for number, face in enumerate(page, start=1):
        table.add_row(str(number), thumbnail(face.cut.square, colours), Text(face.name, overflow="fold"), _proposal(face))
    return table


def _proposal(face: Found) -> str:
    company = "" if face.alone else "\nnot alone in the picture"
    label: Label | None = face.label
    if label is None:
        return f"? (say which){company}"
    sure = f" {label.confidence:.0%}" if label.origin is Origin.MODEL else f", says {label.origin.value}"
    return f"{label.emotion}{sure}{company}"


def thumbnail(square: NDArray[np.uint8], colours: bool, side: int = THUMB) -> Text:
    """A grey face, `side` letters wide: half blocks with two pixels to a letter, or without colours one letter of `RAMP` each."""
    if not colours:
        small = sized(square, side, side // 2)
        return Text("\n".join("".join(RAMP[int(value) * len(RAMP) // 256] for value in row) for row in small))
    small = sized(square, side, side)
    text = Text()
    for top in range(0, side - 1, 2):
        for above, below in zip(small[top], small[top + 1], strict=True):
            text.append("▀", style=f"rgb({above},{above},{above}) on rgb({below},{below},{below})")
        text.append("\n" if top + 2 < side - 1 else "")
    return text
