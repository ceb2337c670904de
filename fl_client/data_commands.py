"""`fl-client data ...`: look at the faces on this device. `fl_client.cli` mounts the application `data`.

Everything here stays on the device: it reads the folder, prints, writes the sheet that is asked for, and sends nothing.
"""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from common.console import command_line, out, print_json
from common.emotions import EMOTIONS_7, EMOTIONS_8
from common.errors import ConfigError, DataError
from models.faces.contact_sheet import write_sheet
from models.faces.folder import require_faces
from models.faces.health import Health, check_folder
from models.preprocess import Preprocessing

data = command_line("Look at the faces on this device; nothing leaves it.")


@data.callback()
def _group() -> None:
    """Look at the faces on this device; nothing leaves it."""


@data.command()
def check(
    folder: Annotated[Path, typer.Argument(help="Holds one folder of pictures per emotion, as my_faces/happiness/1.png.")],
    seven: Annotated[bool, typer.Option("--seven", help="Check for a model of seven emotions: without contempt.")] = False,
    sheet: Annotated[Path | None, typer.Option(help="Write all faces on one picture, a .png for you alone (0600).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="End with code 3 also if anything is left out, alike, blurred, missing or open.")
    ] = False,
) -> None:
    """Count the usable faces per emotion; name copies, blurred, small and broken pictures, and what others may read.

    Exits with 0 if a usable face exists, else with the code of unusable data (3).
    """
    if sheet is not None and sheet.suffix.lower() != ".png":
        raise ConfigError(f"--sheet writes a .png file; {sheet.name} is none.")
    health, picture = check_folder(folder, Preprocessing(), EMOTIONS_7 if seven else EMOTIONS_8)
    if sheet is not None:
        write_sheet(sheet, picture, mode=0o600)
    if as_json:
        print_json(health.as_json())
    else:
        out.print(health, soft_wrap=False)
        if sheet is not None:
            out.print(f"All faces on one picture: {escape(str(sheet))}", soft_wrap=True)
    require_faces(health.report)
    if strict and not health.clean:
        raise DataError(f"{health.report.folder} is not without faults: {_faults(health)}.")


def _faults(health: Health) -> str:
    found = {
        "left out": len(health.report.left_out),
        "nearly equal": sum(len(names) - 1 for names in health.near),
        "of little use": len(health.flawed),
        "open to others": len(health.exposed),
        "emotions missing": len(health.missing),
    }
    said = [f"{count:,} {what}" for what, count in found.items() if count]
    return ", ".join(said) or f"one emotion has {health.imbalance:.1f} times the faces of another"
