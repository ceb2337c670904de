"""What a head of its own does for a device: `python -m benchmarks.own_heads --data fer2013.csv`, in about three minutes.

The shipped base on PrivateTest's faces (288 of 3,574 are in Training too), dealt to devices with skewed labels. Each device fits
a head to four fifths of its faces and is judged by the rest, as `fl-client personalise` does.
"""

import time
from typing import Annotated, Any

import numpy as np
import typer
from rich.table import Table

from benchmarks.conclusion import conclude
from benchmarks.real_data import Data, find_data
from common.console import command_line, out, run_command_line
from common.emotions import EMOTIONS_7
from fl_client.personal import PersonalSettings, personalise, split_aside
from models.faces.faceset import FaceSet
from models.faces.source import open_faces
from models.mobilenet import build_model
from models.preprocess import Preprocessing
from models.pretrained import open_base
from simulation.partition import PartitionConfig, partition
from simulation.personalise import STAGES, TITLES, Outcome, Spread

CLIENTS, LEAST = 20, 20
ALPHAS = (0.1, 0.3, 1.0)


def measure(faces: FaceSet, alpha: float, seed: int, settings: PersonalSettings) -> Outcome:
    """All devices of one deal."""
    base = open_base()
    config = base.manifest.config(faces.classes)
    model, weights = build_model(config), base.weights(config)
    dealt = PartitionConfig(scheme="dirichlet", clients=CLIENTS, alpha=alpha, min_examples=LEAST, seed=seed)
    found, fitted = [], []
    for rows in partition(faces, dealt):
        own, aside = split_aside(faces.take(rows), settings.aside, seed)
        found.append(personalise(model, weights, own, aside, Preprocessing(), settings))
        fitted.append(len(own))
    return Outcome(tuple(range(CLIENTS)), tuple(fitted), tuple(found), kept=False)


def averaged(outcomes: list[Outcome]) -> dict[str, dict[str, float]]:
    """By stage, means over deals of each figure."""
    return {
        stage: {name: float(np.mean([getattr(one.spread(stage), name) for one in outcomes])) for name in Spread.__annotations__}
        for stage in STAGES
    }


app = command_line("What a head of its own does for a device.")


@app.command()
def main(
    data: Data = None,
    seeds: Annotated[int, typer.Option(min=1, max=10, help="Deals of the faces.")] = 3,
    pull: Annotated[float, typer.Option(help="How strongly heads are held.")] = PersonalSettings().pull,
    choose: Annotated[bool, typer.Option("--choose", help="On PublicTest, by which the default pull was chosen.")] = False,
) -> None:
    """Deal, fit, judge; print a table and one line of JSON."""
    faces, note = open_faces(
        find_data(data), labels="fer2013", usage="PublicTest" if choose else "PrivateTest", classes=EMOTIONS_7
    )
    out.print(note)
    table = Table(title=f"{CLIENTS} devices, {seeds} deals, the shipped base", title_justify="left")
    for heading in ("alpha", "model", "mean", "worst", "best", "balanced", "harmed"):
        table.add_column(heading, justify="left" if heading == "model" else "right", no_wrap=True)
    results: dict[str, Any] = {}
    began = time.process_time()
    for alpha in ALPHAS:
        outcomes = [measure(faces, alpha, seed, PersonalSettings(pull=pull)) for seed in range(seeds)]
        results[f"{alpha:g}"] = stages = averaged(outcomes)
        for stage, spread in stages.items():
            figures = (f"{spread[name]:.1%}" for name in ("mean", "worst_tenth", "best_tenth", "balanced"))
            worse = f"{np.mean([one.worse_off for one in outcomes]):.1f}" if stage == "after" else ""
            table.add_row(f"{alpha:g}" if stage == "before" else "", TITLES[stage], *figures, worse)
    out.print(table)
    out.print("worst, best: means of that tenth of the devices; harmed: devices that are worse off, mean of the deals.")
    conclude("own_heads", {"pull": pull, "cpu_seconds": round(time.process_time() - began), "results": results})


if __name__ == "__main__":
    run_command_line(app)
