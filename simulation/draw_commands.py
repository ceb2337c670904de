"""`fl-sim draw` and `fl-sim scene`: drawn faces and a drawn film, to try things out without a camera or anybody's face."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from common.console import out

Help = typer.Option


def draw(
    folder: Annotated[Path, typer.Argument(help="Where the folders of emotions go; must not exist or be empty.")],
    count: Annotated[int, Help(min=7, help="How many faces.")] = 200,
    people: Annotated[int, Help(min=1, help="How many people they show.")] = 1,
    seed: Annotated[int, Help(min=0, help="Another seed draws other people.")] = 0,
) -> None:
    """Draw faces into FOLDER/<emotion>/*.png, the layout that a device's own faces have: to try things out without a camera."""
    from simulation.drawn_folder import draw_folder

    written = draw_folder(folder, count, people=people, seed=seed)
    out.print(f"{written} faces of {people} {'person' if people == 1 else 'people'} in {escape(str(folder))}.", soft_wrap=True)


def scene(
    file: Annotated[Path, typer.Argument(help="The .mp4 file to write.")],
    frames: Annotated[int, Help(min=1, max=100_000, help="How many, at 15 a second.")] = 150,
    people: Annotated[int, Help(min=1, max=4, help="How many people move in it.")] = 2,
    seed: Annotated[int, Help(min=0, help="Another seed draws other people.")] = 0,
) -> None:
    """Draw a short film of moving faces, for `fl-client webcam --source FILE`."""
    from simulation.synthetic_scene import write_scene_video

    write_scene_video(file, frames, seed=seed, people=people)
    out.print(f"{frames} frames in {escape(str(file))}.", soft_wrap=True)
