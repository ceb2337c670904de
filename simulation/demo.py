"""The main job on drawn faces, from nothing to a labelled video: `fl-sim demo` and `make demo` call it."""

from pathlib import Path

from common.config import RunConfig, make_config
from fl_client.webcam_commands import webcam
from models.published import PUBLISHER
from simulation.synthetic_scene import write_scene_video

FRAMES, SCENE_SEED = 90, 1
VIDEO, LABELLED = "scene.mp4", "scene-labelled.mp4"


def demo_config() -> RunConfig:
    """A private run that two cores finish in under two minutes: ten devices, drawn faces, epsilon 8."""
    return make_config(
        {
            "model": {"name": "mobilenet_v2_025", "stem_stride": 2},
            "data": {"drawn": 8000, "clients": 10, "scheme": "dirichlet", "alpha": 1.0},
            "server": {"rounds": 10},
            "train": {"batch_size": 64, "learning_rate": 0.1, "augment": False},
        }
    )


def film(folder: Path, registry: Path) -> Path:
    """Draw a short scene of moving faces, and label it with the published model through the camera loop itself."""
    video, labelled = folder / VIDEO, folder / LABELLED
    write_scene_video(video, FRAMES, seed=SCENE_SEED)
    webcam(source=str(video), registry=registry, trust=str(registry / PUBLISHER), headless=True, output=labelled)
    return labelled
