"""The main job on drawn faces, from nothing to a labelled video: `fl-sim demo` and `make demo` call it.

A first model comes from public drawn faces, as it would in practice; then ten devices with people of their own train its head.
"""

import os
from pathlib import Path
from tempfile import TemporaryDirectory

from common.config import RunConfig, TrainConfig, make_config
from common.errors import EmoflError
from fl_client.webcam_commands import webcam
from fl_server.publisher import privacy_statement
from models.published import PUBLISHER, open_published
from simulation.run import default_out, require_empty
from simulation.synthetic_faces import draw_faces
from simulation.synthetic_scene import write_scene_video
from simulation.warm_up import BASE, warm_up

FRAMES, SCENE_SEED = 90, 1
PUBLIC_FACES, PUBLIC_SEED, PUBLIC_EPOCHS = 2500, 1_000_003, 8
VIDEO, LABELLED = "scene.mp4", "scene-labelled.mp4"


def demo_config(init: Path | None = None) -> RunConfig:
    """A private run that two cores finish in about a minute: ten devices, drawn faces, epsilon 8, the classifier trained."""
    return make_config(
        {
            "init": init,
            "model": {"name": "mobilenet_v2_tiny_128", "stem_stride": 2, "trainable": "head"},
            "data": {"drawn": 5000, "clients": 10, "scheme": "dirichlet", "alpha": 1.0},
            "server": {"rounds": 8},
            "train": {"batch_size": 64, "learning_rate": 0.1, "augment": False},
        }
    )


def demo_folder() -> Path:
    """runs/demo, which README.md's commands look into; runs/demo-<time> once that or its first model's place is taken."""
    timed = default_out()
    first = timed.with_name("demo")
    base = beside(first)
    free = not os.path.lexists(first) and (not os.path.lexists(base) or earlier_base(base) is not None)
    return first if free else timed.with_name(f"demo-{timed.name}")


def beside(home: Path) -> Path:
    """Where the first model of the demo in `home` lies."""
    return home.with_name(f"{home.name}-base")


def earlier_base(folder: Path) -> Path | None:
    """The registry of the whole first model that an earlier demo left in `folder`, for this one to start from; None without."""
    try:
        manifest = open_published(folder / BASE, trust=folder / BASE / PUBLISHER).manifest
    except EmoflError:
        return None
    config = demo_config()
    promise = privacy_statement(config.privacy, trained=False, public_data=public_data())
    return folder / BASE if manifest.model == config.model and manifest.privacy == promise else None


def public_base(folder: Path) -> Path:
    """Train the demo's first model on public drawn faces; returns its registry.

    It is made beside `folder` and becomes `folder` when it is whole: a demo that is stopped is not in the next one's way.

    Raises:
        RunError: `folder` holds something already.
    """
    require_empty(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as nearby:
        made = Path(nearby) / folder.name
        made.mkdir()
        faces = draw_faces(PUBLIC_FACES, seed=PUBLIC_SEED, people=PUBLIC_FACES // 30)
        train = TrainConfig(batch_size=32, learning_rate=0.05, augment=False)
        warm_up(demo_config(), faces, train, PUBLIC_EPOCHS, made, public_data())
        made.replace(folder)
    return folder / BASE


def public_data() -> str:
    """What the first model learns from, as its manifest says it."""
    return f"{PUBLIC_FACES} drawn faces"


def film(folder: Path, registry: Path) -> Path:
    """Draw a short scene of moving faces, and label it with the published model through the camera loop itself."""
    video, labelled = folder / VIDEO, folder / LABELLED
    write_scene_video(video, FRAMES, seed=SCENE_SEED)
    webcam(source=str(video), registry=registry, trust=str(registry / PUBLISHER), headless=True, output=labelled)
    return labelled
