"""A face folder looked at closely: what is used, what is nearly the same, blurred or small, and who else may read it.

`fl-client data check` prints it. Everything stays on the device.
"""

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from models.faces.contact_sheet import Colour, Layout, Picture, Row, contact_sheet
from models.faces.folder import OWN_FOLDER, Scan, scan
from models.faces.quality import alike, fingerprint, flaw_of
from models.faces.report import FolderReport, printable
from models.preprocess import Preprocessing

UNBALANCED = 3.0
"""More faces of one emotion than so many times those of another are worth a word."""

MOST_TILES = 96
"""Faces of one emotion on a contact sheet."""

NEAR_COLOUR: Colour = (200, 120, 0)
FLAW_COLOUR: Colour = (0, 120, 240)


@dataclass(frozen=True)
class Flawed:
    """A usable picture that teaches little."""

    name: str
    flaw: str

    def __str__(self) -> str:
        return f"{self.name}: {self.flaw}"


@dataclass(frozen=True)
class Health:
    """What was found in a face folder. `rich` prints it.

    Attributes:
        report: what is used, and what is left out with the reason.
        near: sets of pictures that are nearly the same; two emotions may be in one set.
        flawed: usable, but small, dark, bright, flat or blurred.
        exposed: files and folders that others on this machine may read or change; "./" is the folder itself.
    """

    report: FolderReport
    near: tuple[tuple[str, ...], ...]
    flawed: tuple[Flawed, ...]
    exposed: tuple[str, ...]

    @property
    def missing(self) -> tuple[str, ...]:
        """Emotions without a face."""
        return tuple(name for name, count in self.report.used if not count)

    @property
    def imbalance(self) -> float | None:
        """Faces of the commonest emotion to those of the rarest that has any; None without faces."""
        counts = [count for _, count in self.report.used if count]
        return max(counts) / min(counts) if counts else None

    @property
    def clean(self) -> bool:
        """Nothing left out, alike, flawed, exposed or missing, and no emotion `UNBALANCED` times as common as another."""
        fair = self.imbalance is not None and self.imbalance <= UNBALANCED
        return fair and not (self.report.left_out or self.near or self.flawed or self.exposed or self.missing)

    def as_json(self) -> dict[str, Any]:
        """All of it, for programs."""
        left_out = [{"path": thing.path, "reason": str(thing.reason), "detail": thing.detail} for thing in self.report.left_out]
        return {
            "folder": self.report.folder,
            "usable": self.report.usable,
            "counts": dict(self.report.used),
            "missing": list(self.missing),
            "imbalance": self.imbalance,
            "left_out": left_out,
            "near_duplicates": [list(names) for names in self.near],
            "flawed": [{"path": thing.name, "flaw": thing.flaw} for thing in self.flawed],
            "readable_by_others": list(self.exposed),
            "clean": self.clean,
        }

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield self.report
        if self.near or self.flawed or self.exposed:
            table = Table("look at", "what", title="Worth a look")
            copies = sum(len(names) - 1 for names in self.near)
            _add(table, f"nearly the same picture ({copies:,} too many)", [" = ".join(names) for names in self.near])
            _add(table, f"of little use ({len(self.flawed):,})", [str(thing) for thing in self.flawed])
            _add(table, f"open to others on this machine ({len(self.exposed):,})", _shortened(self.exposed))
            yield table
        for sentence in self.advice():
            yield Text(sentence)

    def advice(self) -> list[str]:
        """What to do about it, one sentence each."""
        said = []
        if self.missing and self.report.usable:
            said.append(f"No face yet of: {', '.join(self.missing)}. What no device shows, no model learns.")
        if self.imbalance is not None and self.imbalance > UNBALANCED:
            counts = [(count, name) for name, count in self.report.used if count]
            (few, rarest), (many, commonest) = min(counts), max(counts)
            said.append(f"{commonest} has {many:,} faces and {rarest} {few:,}: more of the rare ones help most.")
        if self.near:
            said.append("Nearly equal pictures teach little, and each counts as a record of its own: keep one of each set.")
        if self.exposed:
            said.append(f"To close the folder to others: chmod -R go= {self.report.folder}")
        return said


def check_folder(path: Path, preprocessing: Preprocessing, classes: tuple[str, ...]) -> tuple[Health, Picture]:
    """What is in `path`, and a contact sheet of it: (H, W, 3) uint8.

    Raises:
        DataError: `path` is no readable folder.
    """
    found = scan(path, preprocessing, classes)
    near = _near(found)
    flaws = [flaw_of(face, *size) for face, size in zip(found.faces.images, found.sizes, strict=True)]
    flawed = tuple(Flawed(name, str(flaw)) for name, flaw in zip(found.names, flaws, strict=True) if flaw)
    names = tuple(tuple(found.names[at] for at in rows) for rows in near)
    health = Health(found.report, names, flawed, tuple(exposed_in(path)))
    repeated = {at for rows in near for at in rows}
    return health, _sheet(found, repeated, {at for at, flaw in enumerate(flaws) if flaw})


def exposed_in(path: Path) -> list[str]:
    """What below `path` others than its owner may read or change, `OWN_FOLDER` left out; sorted, folders end in a slash."""
    if _closed(path):
        return []
    open_to_others = [] if not _open(path) else ["./"]
    for folder, folders, files in os.walk(path):
        here = Path(folder)
        folders[:] = sorted(name for name in folders if here != path or name != OWN_FOLDER)
        for name in (*folders, *files):
            if _open(here / name):
                end = "/" if name in folders else ""
                open_to_others.append(printable(str((here / name).relative_to(path))) + end)
        folders[:] = [name for name in folders if not _closed(here / name)]
    return sorted(open_to_others)


def _open(path: Path) -> bool:
    try:
        status = path.lstat()
    except OSError:
        return False
    return not stat.S_ISLNK(status.st_mode) and bool(status.st_mode & (stat.S_IRWXG | stat.S_IRWXO))


def _closed(folder: Path) -> bool:
    """Whether nobody else may enter the folder, so that nothing in it can be reached."""
    try:
        return not folder.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)
    except OSError:
        return True


def _near(found: Scan) -> list[tuple[int, ...]]:
    prints = [fingerprint(face) for face in found.faces.images]
    return alike(np.stack(prints), found.faces.labels) if prints else []


def _sheet(found: Scan, repeated: set[int], flawed: set[int]) -> Picture:
    rows = []
    for label, name in enumerate(found.faces.classes):
        at: Sequence[int] = [int(row) for row in np.flatnonzero(found.faces.labels == label)]
        shown = at[:MOST_TILES]
        frames = [
            (tile, FLAW_COLOUR if row in flawed else NEAR_COLOUR) for tile, row in enumerate(shown) if row in flawed | repeated
        ]
        rest = f"\n{len(at):,}" + (f", {len(shown)} shown" if len(shown) < len(at) else "")
        rows.append(Row(name + rest, [found.faces.images[row] for row in shown], frames))
    notes = [("nearly the same as another", NEAR_COLOUR)] * bool(repeated) + [("of little use", FLAW_COLOUR)] * bool(flawed)
    return contact_sheet(rows, Layout(margin=124), notes)


def _shortened(names: Sequence[str], most: int = 5) -> list[str]:
    more = len(names) - most
    return list(names) if more <= 1 else [*names[:most], f"and {more:,} more"]


def _add(table: Table, why: str, what: Sequence[str]) -> None:
    if what:
        table.add_row(why, Text("\n".join(what), overflow="fold"))
        table.add_section()
