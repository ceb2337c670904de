"""What taking class frequencies out of a finished run's answers does (`models.prior.even_shift`).

Once with the devices' noisy counts, as the published model carries them, and once with the public ones of the data set.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.accuracy_cells import Cell
from benchmarks.accuracy_figures import EVENED, Evened, begun, read_complete
from common.canonical import encode
from common.files import write_atomic
from models.class_counts import FER2013, FERPLUS, counts_in
from models.evaluate import judge, predict
from models.mobilenet import build_model
from models.preprocess import Preprocessing
from models.prior import Numbers, even_shift

SHARES = (0.0, 0.25, 0.5, 1.0)


def even_out(cell: Cell, folder: Path) -> None:
    """Scores the finished runs of a cell whose models carry class counts, where that is not done yet."""
    from common.parameters import write_parameters
    from models.published import latest_name, read_registered, registry_key
    from simulation.population import make_population
    from simulation.run import REGISTRY, RunFolder

    if not cell.evened:
        return
    for _, path in begun(folder, cell.name):
        if (path / EVENED).exists() or read_complete(path) is None:
            continue
        run, registry = RunFolder(path), path / REGISTRY
        newest = read_registered(registry, latest_name(registry), registry_key(registry))
        counts = counts_in(newest.manifest.metrics, run.config.model.classes)
        if counts is None:
            continue
        model = build_model(run.config.model)
        write_parameters(model, newest.weights())
        faces = make_population(run.config.data, run.config.model, run.config.seed).test
        logits = predict(model, faces, Preprocessing())
        public = FERPLUS if run.config.data.labels == "ferplus" else FER2013
        known = np.array([public[name] for name in run.config.model.classes])
        found: Evened = {
            "noisy": score_shares(logits, faces.targets, counts),
            "public": score_shares(logits, faces.targets, known),
        }
        write_atomic(path / EVENED, encode(found))


def score_shares(logits: NDArray[np.float32], targets: NDArray[np.float32], counts: Numbers) -> dict[str, dict[str, float]]:
    """By share taken out, accuracy and balanced accuracy."""
    scores = {share: judge((logits + even_shift(counts, share)).astype(np.float32), targets) for share in SHARES}
    return {f"{share:g}": {"accuracy": one.accuracy, "balanced": one.balanced_accuracy} for share, one in scores.items()}
