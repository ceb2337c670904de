import shutil
import time
from pathlib import Path

import pytest

from common.config import ModelConfig
from fl_client.even_source import EvenSource
from fl_client.webcam.classifier import Classifier
from fl_client.webcam.model import LoopModel
from fl_client.webcam.registry import RegistrySource
from fl_client.webcam.watcher import ModelWatcher
from models.class_counts import FER2013, as_metrics

from .conftest import loop_model, publish


def watcher_of(registry: Path, looks_per_second: float = 2.0) -> ModelWatcher:
    source = RegistrySource(registry)
    return ModelWatcher(source, Classifier(source.newest()), Classifier, looks_per_second)


def test_a_newer_version_is_ready_to_run_when_it_is_handed_over_once(registry: Path) -> None:
    watcher = watcher_of(registry)
    watcher.look()
    assert watcher.take() is None
    publish(registry, 2)
    watcher.look()
    newer = watcher.take()
    assert newer is not None
    assert newer.model.version == "run demo round 2 #2"
    assert watcher.take() is None
    assert watcher.refusals() == []


def test_the_newest_wins_when_two_appear_between_frames(registry: Path) -> None:
    watcher = watcher_of(registry)
    for number in (2, 3):
        publish(registry, number)
        watcher.look()
    newer = watcher.take()
    assert newer is not None
    assert newer.model.version == "run demo round 3 #3"


def test_an_altered_version_is_refused_once_and_a_good_one_after_it_is_taken(registry: Path) -> None:
    watcher = watcher_of(registry)
    onnx_file = publish(registry, 2).folder / "model.onnx"
    onnx_file.write_bytes(onnx_file.read_bytes()[:-1] + b"?")
    for _ in range(3):
        watcher.look()
    (refusal,) = watcher.refusals()
    assert "model.onnx was altered" in refusal
    assert watcher.take() is None
    publish(registry, 3)
    watcher.look()
    newer = watcher.take()
    assert newer is not None
    assert newer.model.version == "run demo round 3 #3"


def test_a_signed_version_that_cannot_run_is_refused(registry: Path) -> None:
    watcher = watcher_of(registry)
    publish(registry, 2, content=b"signed, and no model")
    watcher.look()
    watcher.look()
    (refusal,) = watcher.refusals()
    assert "run demo round 2 #2 cannot be run by ONNX Runtime" in refusal
    assert watcher.take() is None


def test_a_version_with_other_classes_needs_a_new_start(registry: Path) -> None:
    watcher = watcher_of(registry)
    publish(registry, 2, model=ModelConfig(classes=("neutral", "happiness")))
    watcher.look()
    (refusal,) = watcher.refusals()
    assert refusal == "run demo round 2 #2 tells other emotions apart; stop and start again to use it."
    assert watcher.take() is None


def test_where_answers_are_evened_a_version_without_class_counts_is_refused_and_one_with_them_taken(tmp_path: Path) -> None:
    registry, counted = tmp_path / "counted", as_metrics(FER2013)
    publish(registry, 1, metrics=counted)
    source = EvenSource(RegistrySource(registry), 0.5)
    watcher = ModelWatcher(source, Classifier(source.newest()), Classifier)
    publish(registry, 2)
    for _ in range(3):
        watcher.look()
    (refusal,) = watcher.refusals()
    assert refusal.startswith("The model run demo round 2 #2 does not say how many faces")
    assert watcher.take() is None
    publish(registry, 3, metrics=counted)
    watcher.look()
    newer = watcher.take()
    assert newer is not None
    assert newer.model.shift is not None


def test_a_registry_that_vanishes_or_goes_back_is_refused(registry: Path) -> None:
    publish(registry, 2)
    watcher = watcher_of(registry)
    (registry / "LATEST").write_text("000001-r0001\n")
    watcher.look()
    assert "rolled back" in watcher.refusals()[0]
    shutil.rmtree(registry)
    watcher.look()
    assert "Nothing is published" in watcher.refusals()[0]
    assert watcher.take() is None


def test_whatever_reading_throws_the_watching_goes_on() -> None:
    class Failing:
        looks = 0

        def newest(self) -> LoopModel:
            return loop_model()

        def newer(self) -> LoopModel | None:
            self.looks += 1
            if self.looks == 1:
                raise OSError("the disk is gone")
            return loop_model(version="run demo round 2 #2")

    watcher = ModelWatcher(Failing(), Classifier(loop_model()), Classifier)
    watcher.look()
    assert watcher.refusals() == ["The registry could not be read: the disk is gone."]
    watcher.look()
    newer = watcher.take()
    assert newer is not None
    assert newer.model.version == "run demo round 2 #2"


def test_the_thread_looks_on_its_own_and_ends_with_its_block(registry: Path) -> None:
    with watcher_of(registry, looks_per_second=200) as watcher:
        publish(registry, 2)
        deadline = time.monotonic() + 20
        while (newer := watcher.take()) is None and time.monotonic() < deadline:
            time.sleep(0.005)
    assert newer is not None
    assert newer.model.version == "run demo round 2 #2"
    assert not watcher._thread.is_alive()


@pytest.mark.parametrize("failures", [0, 1, 20])
def test_a_refused_version_is_looked_at_less_often(registry: Path, failures: int) -> None:
    watcher = watcher_of(registry)
    if failures:
        (registry / "LATEST").write_text("nonsense\n")
    for _ in range(failures):
        watcher.look()
    assert watcher._until_next_look() == [0.5, 1.0, 5.0][[0, 1, 20].index(failures)]
