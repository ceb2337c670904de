import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.accuracy import halve, missed_claims
from benchmarks.accuracy_cells import CELLS, CLAIMS, START
from benchmarks.accuracy_plot import plot_groups
from benchmarks.accuracy_results import read_lines
from models.pretraining.data import load_splits
from tests.models.pretraining.test_data import MAJORITY, USAGES, write


def test_every_cell_is_a_run_that_fl_sim_takes_and_has_a_name_of_its_own(tmp_path: Path) -> None:
    for cell in CELLS:
        config = cell.config(str(tmp_path / "fer2013.csv"), str(tmp_path), seed=2)
        assert config.seed == 2
        assert str(config.init) == (str(tmp_path) if "scratch" not in cell.name else "None")
    assert len({cell.name for cell in CELLS}) == len(CELLS)


def test_claims_are_about_cells() -> None:
    names = {cell.name for cell in CELLS} | {START}
    assert {claim.cell for claim in CLAIMS} | {claim.against for claim in CLAIMS} <= names


def test_the_halves_share_no_training_face_and_all_test_faces(tmp_path: Path) -> None:
    write(tmp_path, [MAJORITY] * 6, USAGES)
    whole = load_splits(tmp_path)
    first, second = (load_splits(path) for path in halve(tmp_path / "fer2013.csv", tmp_path / "halves"))
    assert len(first.training) + len(second.training) == len(whole.training)
    assert abs(len(first.training) - len(second.training)) <= 1
    faces = [{image.tobytes() for image in half.training.images} for half in (first, second)]
    assert not faces[0] & faces[1]
    assert np.array_equal(first.test.images, whole.test.images)
    assert np.array_equal(second.test.images, whole.test.images)


def write_run(folder: Path, cell: str, seed: int, accuracy: float) -> None:
    path = folder / "runs" / cell / f"seed-{seed}" / "summary.json"
    path.parent.mkdir(parents=True)
    figures = {
        "start_accuracy": 0.60,
        "test_accuracy": accuracy,
        "test_balanced_accuracy": accuracy / 2,
        "device_accuracy_worst_tenth": None,
    }
    path.write_text(json.dumps(figures | {"epsilon": None, "client_epsilon": None}))


def test_a_line_is_the_mean_of_its_seeds_with_students_interval(tmp_path: Path) -> None:
    for seed, accuracy in enumerate((0.60, 0.62, 0.64)):
        write_run(tmp_path, "central/base", seed, accuracy)
    (line,) = read_lines(tmp_path)
    assert (line.name, line.seeds) == ("central/base", 3)
    assert line.accuracy == pytest.approx(0.62)
    assert line.margin == pytest.approx(4.303 * 0.02 / np.sqrt(3))


@pytest.mark.parametrize(("accuracy", "missed"), [(0.60, 2), (0.61, 1), (0.63, 0)])
def test_a_claim_that_does_not_hold_is_named_once_its_runs_are_there(tmp_path: Path, accuracy: float, missed: int) -> None:
    assert missed_claims(read_lines(tmp_path)) == []
    write_run(tmp_path, "central/base", 0, 0.62)
    write_run(tmp_path, "fedavg/base-alpha-0.3-20", 0, accuracy)
    sentences = missed_claims(read_lines(tmp_path))
    assert len(sentences) == missed
    if missed:
        assert f"{100 * (accuracy - 0.60):+.1f} points above its own start instead of 2" in sentences[-1]


def test_each_group_of_runs_gets_a_picture(tmp_path: Path) -> None:
    for cell in ("central/base", "fedavg/base-alpha-0.3-20", "fedavg/block-iid-20"):
        write_run(tmp_path, cell, 0, 0.6)
    found = plot_groups(read_lines(tmp_path), tmp_path / "plots")
    assert [path.name for path in found] == ["central.png", "fedavg.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in found)
