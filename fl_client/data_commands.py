"""`fl-client data ...`: look at the faces on this device. `fl_client.cli` mounts the application `data`.

Everything here stays on the device: it reads the folder, prints, and sends nothing.
"""

from pathlib import Path
from typing import Annotated

import typer

from common.console import command_line, out
from common.emotions import EMOTIONS_7, EMOTIONS_8
from models.faces.folder import require_faces, scan_folder
from models.preprocess import Preprocessing

data = command_line("Look at the faces on this device; nothing leaves it.")


@data.callback()
def _group() -> None:
    """Look at the faces on this device; nothing leaves it."""


@data.command()
def check(
    folder: Annotated[Path, typer.Argument(help="Holds one folder of pictures per emotion, as my_faces/happiness/1.png.")],
    seven: Annotated[bool, typer.Option("--seven", help="Check for a model of seven emotions: without contempt.")] = False,
) -> None:
    """Count the usable faces per emotion and name everything that would be left out.

    Exits with 0 if a usable face exists, else with the code of unusable data (3).
    """
    _, report = scan_folder(folder, Preprocessing(), EMOTIONS_7 if seven else EMOTIONS_8)
    out.print(report)
    require_faces(report)
    if missing := [name for name, count in report.used if not count]:
        out.print(f"No face yet of: {', '.join(missing)}. What no device shows, no model learns.")
