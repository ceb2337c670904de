import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from common.config import make_config
from common.errors import RunError
from fl_client.own_head import OwnHead, read_head, write_head
from fl_client.personal import Personalised, PersonalSettings
from fl_server.checkpoint import Checkpoint
from fl_server.rounds import CHECKPOINT
from models.evaluate import Evaluation
from models.published import open_published
from models.subset import HEAD
from simulation.devices import SimulatedDevices
from simulation.perform import perform
from simulation.personalise import CSV, JSON, PLOT, Outcome, own_head, personalise_run, write_outcome
from simulation.report import read_metrics
from simulation.run import REGISTRY, RunFolder

QUICK = PersonalSettings(steps=5)


def run(folder: Path, **over: dict[str, Any]) -> RunFolder:
    values: dict[str, Any] = {
        "model": {"name": "mobilenet_v2_tiny_128", "stem_stride": 2, "trainable": "last-block"},
        "data": {"drawn": 160, "clients": 3, "alpha": 1.0, "holdout": 0.3},
        "server": {"rounds": 2},
        "train": {"batch_size": 16, "local_steps": 2},
        "privacy": {"private": False},
    }
    merged = {group: values.get(group, {}) | over.get(group, {}) for group in {*values, *over}}
    perform(make_config(merged), folder, None, "in-process", 1)
    return RunFolder(folder)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return run(tmp_path_factory.mktemp("runs") / "plain", server={"rounds": 1})


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    counted = {"loss": "logit-adjusted", "local_layers": "head"}
    asked = {"train": {"batch_size": 16, "local_steps": 2} | counted, "evaluation": {"class_histogram": True}}
    return run(tmp_path_factory.mktemp("runs") / "kept", privacy={"private": True}, **asked)


def score(right: int, wrong: int) -> Evaluation:
    return Evaluation(1.0, np.array([[right, wrong], [0, 0]]))


def outcome(pairs: list[tuple[int, int]]) -> Outcome:
    """Devices with ten held-out faces each: right before, right after."""
    found = [Personalised({}, score(a, 10 - a), score(a, 10 - a), score(b, 10 - b)) for a, b in pairs]
    return Outcome(tuple(range(len(pairs))), tuple(20 for _ in pairs), tuple(found), kept=False)


def test_the_spread_is_over_devices_and_the_worst_tenth_are_the_worst_devices() -> None:
    many = outcome([(n % 10, min(10, n % 10 + 1)) for n in range(20)])
    before, after = many.spread("before"), many.spread("after")
    assert (before.mean, before.worst_tenth, before.best_tenth) == pytest.approx((0.45, 0.0, 0.9))
    assert (after.mean, after.worst_tenth, after.best_tenth) == pytest.approx((0.55, 0.1, 1.0))
    assert many.worse_off == 0
    assert outcome([(5, 4), (5, 6)]).worse_off == 1


def test_each_device_is_judged_before_and_after_and_the_figures_are_written(plain: RunFolder) -> None:
    before = (plain.path / CHECKPOINT).read_bytes()
    found = personalise_run(plain, QUICK)
    values = write_outcome(plain.path, found, QUICK)
    assert not found.kept
    assert json.loads((plain.path / JSON).read_bytes()) == values
    rows = list(csv.DictReader((plain.path / CSV).read_text().splitlines()))
    assert [int(row["device"]) for row in rows] == [0, 1, 2]
    assert float(rows[0]["after"]) == found.found[0].after.accuracy
    assert values["before"]["mean"] == pytest.approx(np.mean([float(row["before"]) for row in rows]))
    assert cv2.imread(str(plain.path / PLOT)) is not None
    assert (plain.path / CHECKPOINT).read_bytes() == before


def test_heads_differ_between_devices_and_are_the_same_each_time(plain: RunFolder) -> None:
    first, again = personalise_run(plain, QUICK), personalise_run(plain, QUICK)
    name = f"{HEAD}1.weight"
    assert not np.array_equal(first.found[0].head[name], first.found[1].head[name])
    assert np.array_equal(first.found[0].head[name], again.found[0].head[name])


def test_in_a_run_with_personal_heads_the_server_never_moves_its_own_and_each_device_keeps_one(kept: RunFolder) -> None:
    state = Checkpoint.load(kept.path / CHECKPOINT)
    first = open_published(kept.path / REGISTRY / "versions" / "000001-r0000", trust=kept.path / REGISTRY / "publisher.pub")
    begun, heads = first.weights(), []
    for name, value in state.weights.items():
        assert name.startswith(HEAD) <= np.array_equal(value, begun[name])
    assert any(not np.array_equal(value, begun[name]) for name, value in state.weights.items())
    for number in range(3):
        head = read_head(SimulatedDevices(kept.config, kept.path / "devices").own_head(number))
        assert head is not None
        heads.append(head.arrays[f"{HEAD}1.weight"])
    assert not np.array_equal(heads[0], heads[1])
    found = personalise_run(kept, QUICK)
    assert found.kept
    assert np.array_equal(found.found[1].head[f"{HEAD}1.weight"], heads[1])


def test_a_device_whose_head_is_damaged_is_judged_with_the_servers(
    kept: RunFolder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    devices = SimulatedDevices(kept.config, tmp_path)
    write_head(devices.own_head(1), OwnHead({f"{HEAD}1.bias": np.full(7, np.nan, np.float32)}))
    assert own_head(devices, 1, Checkpoint.load(kept.path / CHECKPOINT).weights) == {}
    assert "judged with the server's head" in caplog.text


def test_the_histogram_is_asked_for_until_it_is_known_and_then_weighs_the_loss(kept: RunFolder) -> None:
    records = read_metrics(kept.path)
    assert ["class_counts" in record for record in records] == [False, True, False]
    counts = records[1]["class_counts"]
    assert set(counts) == set(kept.config.model.classes)
    assert min(counts.values()) >= 1
    assert abs(sum(counts.values()) - 160 * 0.7) < 150  # of noise 8 on each of 3 x 7 counts


def test_a_run_that_kept_nothing_aside_is_one_sentence(plain: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    from simulation import personalise as module

    population = module.make_population(plain.config.data, plain.config.model, plain.config.seed)
    bare = replace(population, holdout=tuple(rows[:0] for rows in population.holdout))
    monkeypatch.setattr(module, "make_population", lambda *_: bare)
    with pytest.raises(RunError, match="kept no faces aside"):
        personalise_run(plain, QUICK)


def test_the_summary_has_the_start_and_a_shift_of_priors_beside_the_accuracy(plain: RunFolder) -> None:
    summary = json.loads((plain.path / "summary.json").read_bytes())
    names = ("priors_shifted", "accuracy", "balanced_accuracy", "balanced_evened")
    assert all(0 <= summary[f"{when}_{name}"] <= 1 for name in names for when in ("test", "start"))
