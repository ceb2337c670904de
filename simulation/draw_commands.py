"""`fl-sim draw`, `scene` and `deal`: drawn faces, a drawn film, and folders of a data set's faces, to try devices out with."""

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.markup import escape

from common.console import out

Help = typer.Option


def draw(
    folder: Annotated[Path, typer.Argument(help="Where the folders of emotions go; must not exist or be empty.")],
    count: Annotated[int, Help(min=7, max=100_000, help="How many faces.")] = 200,
    people: Annotated[int, Help(min=1, max=100_000, help="How many people they show.")] = 1,
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


def deal(
    source: Annotated[Path, typer.Argument(help="fer2013.csv, a folder that holds it, or a folder per emotion.")],
    folder: Annotated[Path, typer.Argument(help="Name of the folders to make, to which a number from 1 is added.")],
    devices: Annotated[int, Help(min=1, max=10_000, help="How many folders.")] = 3,
    count: Annotated[int, Help(min=1, help="Faces of each, on average.")] = 300,
    alpha: Annotated[
        float | None, Help(min=0.01, help="Let devices differ: Dirichlet concentration, as of `fl-sim run` (default: evenly).")
    ] = None,
    labels: Annotated[Literal["fer2013", "ferplus"], Help(help="Whose labels a CSV gets.")] = "fer2013",
    seed: Annotated[int, Help(min=0, help="Another seed deals other faces.")] = 0,
) -> None:
    """Deal faces of a data set to folders, as devices have them: FOLDER1/<emotion>/*.png, FOLDER2/... No face lies in two."""
    from models.faces.source import open_faces
    from simulation.face_folders import deal_faces

    def say(where: Path, dealt: int) -> None:
        out.print(f"{dealt} faces in {escape(str(where))}.", soft_wrap=True)

    faces, sentence = open_faces(source, labels=labels, usage="Training")
    out.print(escape(sentence), soft_wrap=True)
    deal_faces(faces, folder, devices=devices, count=count, alpha=alpha, seed=seed, say=say)
