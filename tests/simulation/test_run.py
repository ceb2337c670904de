import json
import os
import shutil
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from common.config import PrivacyConfig, RunConfig, make_config
from common.errors import ConfigError, ModelError, RunError
from common.identity import PublicKey, SigningKey
from common.privacy.ledger import Ledger
from fl_server.checkpoint import Checkpoint
from fl_server.hub import Registry, check_registry
from fl_server.publisher import privacy_statement
from fl_server.rounds import CHECKPOINT
from models.class_counts import counts_in
from models.manifest import ModelFacts, PrivacyStatement
from models.published import PUBLISHER, open_published
from models.starting_point import START, pinned_start, starting_point
from simulation.perform import perform
from simulation.population import make_population
from simulation.report import read_metrics
from simulation.run import KEY, REGISTRY, Engine, RunFolder, run_simulation

ROOT = Path(__file__).parents[2]


def config(**over: Any) -> RunConfig:
    values: dict[str, Any] = {
        "model": {"name": "mobilenet_v2_tiny_128", "stem_stride": 2, "trainable": "last-block"},
        "data": {"drawn": 300, "clients": 4, "alpha": 1.0},
        "server": {"rounds": 2},
        "train": {"batch_size": 16, "local_steps": 2},
    }
    for group, settings in over.items():
        values[group] = (values.get(group, {}) | settings) if isinstance(settings, dict) else settings
    return make_config(values)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "private"
    return perform(config(), folder, None, "in-process", 2)


def test_a_run_folder_holds_configuration_metrics_plots_summary_and_model(finished: Path) -> None:
    names = {str(path.relative_to(finished)) for path in finished.rglob("*") if path.is_file()}
    assert {"config.json", "metrics.jsonl", "summary.json", CHECKPOINT} <= names
    for plot in ("accuracy", "epsilon", "devices", "skew"):
        picture = cv2.imread(str(finished / "plots" / f"{plot}.png"))
        assert picture is not None
        assert picture.std() > 5
    records = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert [r["round"] for r in records] == [0, 1, 2]
    assert all(r["accepted"] == 4 for r in records[1:])


def test_every_accepted_model_is_published_signed_and_says_what_it_promises(finished: Path) -> None:
    registry = finished / REGISTRY
    versions = list(check_registry(registry, PublicKey.read(registry / PUBLISHER)))
    assert [v.manifest.round for v in versions] == [0, 1, 2]
    last = versions[-1].manifest
    assert last.privacy.private
    assert (last.privacy.unit, last.privacy.epsilon, last.privacy.delta) == ("record", 8.0, 1e-5)
    assert (last.cohort.asked, last.cohort.accepted) == (4, 4)
    assert versions[0].manifest.privacy.epsilon == 0
    weights = Checkpoint.load(finished / CHECKPOINT).weights
    assert all(np.array_equal(weights[name], value) for name, value in versions[-1].weights().items())


def test_epsilon_grows_over_the_rounds_to_at_most_the_budget_and_is_the_ledgers(finished: Path) -> None:
    records = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    epsilons = [r["epsilon"] for r in records]
    assert epsilons[0] == 0
    assert epsilons == sorted(epsilons)
    assert 7.5 < epsilons[-1] <= 8.0
    ledgers = [Ledger(finished / "devices" / f"{n:05d}" / "ledger.jsonl") for n in range(4)]
    assert max(ledger.epsilon(1e-5, "rdp") for ledger in ledgers) == pytest.approx(epsilons[-1], abs=1e-3)
    assert all(len(ledger.entries) == 2 for ledger in ledgers)


def test_a_run_without_privacy_is_marked_so_everywhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = config(privacy={"private": False}, evaluation={"class_histogram": True})
    folder = perform(settings, tmp_path / "open", None, "in-process", 1)
    manifest = open_published(folder / REGISTRY, trust=folder / REGISTRY / PUBLISHER).manifest
    assert not manifest.privacy.private
    assert manifest.privacy.statement.startswith("NOT PRIVATE")
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["private"], summary["epsilon"]) == (False, None)
    assert not Ledger(folder / "devices" / "00000" / "ledger.jsonl").all_private
    assert "NON-PRIVATE" in capsys.readouterr().out
    assert "class_counts" in read_metrics(folder)[1]
    assert counts_in(manifest.metrics, manifest.model.classes) is None  # nobody added noise to them


def test_a_private_run_publishes_the_noisy_class_counts_that_it_asked_for(tmp_path: Path) -> None:
    folder = perform(config(evaluation={"class_histogram": True}), tmp_path / "counted", None, "in-process", 2)
    asked = [record.get("class_counts") for record in read_metrics(folder)]
    assert [counts is None for counts in asked] == [True, False, True]
    key = PublicKey.read(folder / REGISTRY / PUBLISHER)
    first, *later = (version.manifest for version in check_registry(folder / REGISTRY, key))
    assert counts_in(first.metrics, first.model.classes) is None
    for manifest in later:
        counts = counts_in(manifest.metrics, manifest.model.classes)
        assert counts is not None
        assert counts.tolist() == [asked[1][name] for name in manifest.model.classes]


def run_in_process(folder: Path) -> None:
    run_simulation(RunFolder(folder), Engine("in-process", 2, 2))


def test_a_run_killed_anywhere_resumes_to_the_very_same_model_as_an_undisturbed_one(tmp_path: Path) -> None:
    settings = config(privacy={"private": False}, server={"rounds": 4})
    for name in ("whole", "killed"):
        RunFolder.create(tmp_path / name, settings, datetime.now(UTC))
    run_in_process(tmp_path / "whole")
    killed = tmp_path / "killed"
    child = subprocess.Popen(
        [sys.executable, "-c", "from simulation.cli import main; main()", "run", "--resume", str(killed)], cwd=ROOT
    )
    metrics = killed / "metrics.jsonl"
    while child.poll() is None and not (metrics.exists() and len(metrics.read_text().splitlines()) >= 3):
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    assert Checkpoint.load(killed / CHECKPOINT).round < 4
    run_in_process(killed)
    first, second = (Checkpoint.load(tmp_path / name / CHECKPOINT) for name in ("whole", "killed"))
    assert all(np.array_equal(first.weights[name], second.weights[name]) for name in first.weights)
    rounds = [json.loads(line)["round"] for line in metrics.read_text().splitlines()]
    assert rounds == [0, 1, 2, 3, 4]
    registry = killed / REGISTRY
    assert {v.manifest.round for v in check_registry(registry, PublicKey.read(registry / PUBLISHER))} == {0, 1, 2, 3, 4}


def test_a_device_never_exceeds_its_budget_when_rounds_are_repeated(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", config(server={"rounds": 2}), datetime.now(UTC))
    run_simulation(folder, Engine("in-process", 1, 1))
    (folder.path / CHECKPOINT).unlink()
    (folder.path / "metrics.jsonl").unlink()
    run_simulation(folder, Engine("in-process", 1, 1))
    for number in range(4):
        ledger = Ledger(folder.path / "devices" / f"{number:05d}" / "ledger.jsonl")
        assert ledger.epsilon(1e-5, "rdp") <= 8.0
    records = [json.loads(line) for line in (folder.path / "metrics.jsonl").read_text().splitlines()]
    assert all(record["left_out"] == {"budget-spent": 4} for record in records[1:])


def test_starting_from_a_published_model_starts_from_its_weights_and_says_so(finished: Path, tmp_path: Path) -> None:
    settings = config(init=str(finished / REGISTRY), server={"rounds": 1})
    folder = RunFolder.create(tmp_path / "next", settings, datetime.now(UTC))
    run_simulation(folder, Engine())
    registry = folder.path / REGISTRY
    first, last = check_registry(registry, PublicKey.read(registry / PUBLISHER))
    earlier = open_published(finished / REGISTRY, trust=finished / REGISTRY / PUBLISHER)
    assert all(np.array_equal(earlier.weights()[name], value) for name, value in first.weights().items())
    assert earlier.manifest.version in last.manifest.init
    assert any(earlier.manifest.version in words for words in last.manifest.privacy.non_private)


def publish_another(registry: Path, key: Path, by: float = 1.0, **changes: object) -> None:
    """A later version, of another run, with weights of its own."""
    earlier = open_published(registry, trust=registry / PUBLISHER)
    facts = {name: getattr(earlier.manifest, name) for name in ModelFacts.model_fields}
    weights = {name: value + np.float32(by) for name, value in earlier.weights().items()}
    found = ModelFacts(**facts | {"run": "another"} | changes)
    Registry(registry, SigningKey.load_or_create(key)).publish(weights, earlier.onnx_bytes(), found)


def test_a_run_stands_by_what_it_began_with_whatever_is_published_there_since(finished: Path, tmp_path: Path) -> None:
    """A registry's latest version is another one after a while: by its promise the run's own would be false, or count twice."""
    registry, key = tmp_path / "registry", finished / KEY
    shutil.copytree(finished / REGISTRY, registry)
    publish_another(registry, key, privacy=PrivacyStatement.absent("training without noise"))
    settings = config(init=str(registry), server={"rounds": 1})
    folder = RunFolder.create(tmp_path / "run", settings, datetime.now(UTC))
    first = pinned_start(settings, folder.path)
    assert first.manifest is not None
    assert first.weights is not None
    assert not first.manifest.privacy.private
    promise = open_published(finished / REGISTRY, trust=finished / REGISTRY / PUBLISHER).manifest.privacy
    shutil.rmtree(registry)
    shutil.copytree(finished / REGISTRY, registry)
    publish_another(registry, key, by=2.0, privacy=promise)
    # Its version is not there any more: it cannot begin from another, and can go on without.
    assert starting_point(settings).manifest != first.manifest
    with pytest.raises(ModelError, match="begin another run"):
        pinned_start(settings, folder.path)
    later = pinned_start(settings, folder.path, begun=True)
    assert (later.name, later.manifest, later.weights) == (first.name, first.manifest, None)
    assert not privacy_statement(settings.privacy, True, later.manifest, later.public_data).private


def test_a_run_begins_from_its_own_version_while_that_is_there(finished: Path, tmp_path: Path) -> None:
    registry = tmp_path / "registry"
    shutil.copytree(finished / REGISTRY, registry)
    settings = config(init=str(registry), server={"rounds": 1})
    folder = RunFolder.create(tmp_path / "run", settings, datetime.now(UTC))
    first = starting_point(settings)
    publish_another(registry, finished / KEY)
    found = pinned_start(settings, folder.path)
    assert (found.name, found.manifest) == (first.name, first.manifest)
    assert found.weights is not None
    assert first.weights is not None
    assert all(np.array_equal(found.weights[name], first.weights[name]) for name in first.weights)


def test_a_run_of_an_earlier_version_that_began_with_a_published_model_is_not_gone_on_with(
    finished: Path, tmp_path: Path
) -> None:
    folder = RunFolder.create(tmp_path / "run", config(init=str(finished / REGISTRY)), datetime.now(UTC))
    (folder.path / START).unlink()
    with pytest.raises(RunError, match="did not note the model"):
        pinned_start(folder.config, folder.path, begun=True)
    assert pinned_start(folder.config, folder.path).manifest is not None


def test_only_so_many_models_stay_as_a_run_asks_for(tmp_path: Path) -> None:
    folder = perform(config(server={"rounds": 2, "keep_models": 2}), tmp_path / "run", None, "in-process", 2)
    registry = folder / REGISTRY
    assert [v.manifest.round for v in check_registry(registry, PublicKey.read(registry / PUBLISHER))] == [1, 2]
    assert [record["round"] for record in read_metrics(folder)] == [0, 1, 2]


def test_a_damaged_note_of_the_start_is_one_sentence(finished: Path, tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", config(init=str(finished / REGISTRY)), datetime.now(UTC))
    (folder.path / START).write_text("{}")
    with pytest.raises(RunError, match="is damaged"):
        pinned_start(folder.config, folder.path)


def test_what_a_run_starts_from_counts_in_its_promise(finished: Path, tmp_path: Path) -> None:
    """Epsilons add up, and weights without a promise leave none."""
    earlier = open_published(finished / REGISTRY, trust=finished / REGISTRY / PUBLISHER).manifest
    assert privacy_statement(PrivacyConfig(epsilon=2.0), True, earlier).epsilon == pytest.approx(10.0)
    assert privacy_statement(PrivacyConfig(epsilon=2.0), False, earlier).epsilon == pytest.approx(8.0)
    assert privacy_statement(PrivacyConfig(epsilon=2.0), True, earlier).delta == pytest.approx(2e-5)
    spoilt = earlier.model_copy(update={"privacy": PrivacyStatement.absent("training without noise")})
    statement = privacy_statement(PrivacyConfig(epsilon=2.0), True, spoilt)
    assert not statement.private
    assert "training without noise" in statement.non_private


@pytest.mark.parametrize("content", ["3", "{}", '{"run":"x"}', "not json"])
def test_a_damaged_run_folder_is_one_sentence(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises((RunError, ConfigError)):
        RunFolder(tmp_path).config  # noqa: B018


def test_damaged_metrics_are_one_sentence_and_resuming_writes_them_anew(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", config(server={"rounds": 1}), datetime.now(UTC))
    run_simulation(folder, Engine())
    metrics = folder.path / "metrics.jsonl"
    whole = metrics.read_bytes()
    metrics.write_bytes(whole[:-20])
    with pytest.raises(RunError, match="is damaged"):
        read_metrics(folder.path)
    run_simulation(folder, Engine())
    assert metrics.read_bytes() == whole


def test_starting_from_another_architecture_is_one_sentence(finished: Path, tmp_path: Path) -> None:
    other = config(init=str(finished / REGISTRY), model={"name": "mobilenet_v2_050"})
    with pytest.raises(ConfigError, match="Make them equal"):
        RunFolder.create(tmp_path / "next", other, datetime.now(UTC))
    assert not (tmp_path / "next").exists()


def test_a_folder_that_holds_something_is_not_overwritten(finished: Path) -> None:
    before = (finished / "summary.json").read_bytes()
    with pytest.raises(RunError, match="is not empty"):
        RunFolder.create(finished, config(), datetime.now(UTC))
    assert (finished / "summary.json").read_bytes() == before


def test_the_same_configuration_makes_the_same_population() -> None:
    settings = config()
    first = make_population(settings.data, settings.model, 0)
    make_population.cache_clear()
    second = make_population(settings.data, settings.model, 0)
    assert np.array_equal(first.faces.images, second.faces.images)
    assert all(np.array_equal(a, b) for a, b in zip(first.training, second.training, strict=True))
