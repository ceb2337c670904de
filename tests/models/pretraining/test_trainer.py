import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from common.canonical import sha256
from common.errors import RunError
from common.processes import only_process
from models.pretraining.checkpoint import CHECKPOINT, PREVIOUS, STABLE, Checkpoint
from models.pretraining.data import Splits
from models.pretraining.result import RESULT
from models.pretraining.trainer import HISTORY
from tests.models.pretraining.tiny import TINY, faces, lengthen_break_and_shorten, make_first_version, splits, train


def state(folder: Path) -> Checkpoint:
    return Checkpoint.load(folder / CHECKPOINT)


def assert_same(a: Checkpoint, b: Checkpoint) -> None:
    assert a.step == b.step
    assert set(a.tensors) == set(b.tensors)
    for name, value in a.tensors.items():
        assert value.dtype == b.tensors[name].dtype
        assert np.array_equal(value, b.tensors[name]), name


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    assert train(folder) is not None
    return folder


@pytest.mark.parametrize("stop_at", [8, 72, 88], ids=lambda n: f"after {n} faces")
def test_a_training_stopped_and_resumed_has_the_weights_of_one_that_ran_through(
    whole: Path, tmp_path: Path, stop_at: int
) -> None:
    assert train(tmp_path, stop_at=stop_at) is None
    assert state(tmp_path).step == stop_at // 8
    assert train(tmp_path) == json.loads((tmp_path / RESULT).read_text())
    assert_same(state(tmp_path), state(whole))
    mine, theirs = json.loads((tmp_path / RESULT).read_text()), json.loads((whole / RESULT).read_text())
    assert mine["test"] == theirs["test"]


def test_sgd_resumes_to_the_bit_too(tmp_path: Path) -> None:
    recipe = TINY.model_copy(update={"optimiser": "sgd", "learning_rate": 0.05})
    train(tmp_path / "whole", recipe=recipe)
    train(tmp_path / "parts", recipe=recipe, stop_at=40)
    train(tmp_path / "parts", recipe=recipe)
    assert_same(state(tmp_path / "parts"), state(tmp_path / "whole"))


def test_another_seed_gives_other_weights(whole: Path, tmp_path: Path) -> None:
    train(tmp_path, recipe=TINY.model_copy(update={"seed": 1}))
    name = "weights/features.0.0.weight"
    assert not np.array_equal(state(tmp_path).tensors[name], state(whole).tensors[name])


def test_a_changed_recipe_is_refused_and_the_setting_named(whole: Path, tmp_path: Path) -> None:
    train(tmp_path, stop_at=16)
    with pytest.raises(RunError, match=r"learning_rate was 0\.002 and is now 0\.5"):
        train(tmp_path, recipe=TINY.model_copy(update={"learning_rate": 0.5}))
    assert state(tmp_path).step == 2


def test_the_intervals_may_change_between_two_calls(tmp_path: Path) -> None:
    train(tmp_path, stop_at=16)
    assert train(tmp_path, recipe=TINY.model_copy(update={"save_every": 8, "validate_every": 16})) is not None


def test_a_truncated_checkpoint_costs_only_what_came_after_the_one_before_it(whole: Path, tmp_path: Path) -> None:
    train(tmp_path, stop_at=56)
    path = tmp_path / CHECKPOINT
    path.write_bytes(path.read_bytes()[:-1000])
    assert Checkpoint.load(tmp_path / PREVIOUS).step == 6
    assert train(tmp_path) is not None
    assert_same(state(tmp_path), state(whole))


def test_a_folder_whose_checkpoints_are_all_damaged_is_refused(tmp_path: Path) -> None:
    train(tmp_path, stop_at=56)
    for name in (CHECKPOINT, PREVIOUS):
        (tmp_path / name).write_bytes(b"\0" * 100)
    with pytest.raises(RunError, match="is damaged"):
        train(tmp_path)


def test_a_lengthened_run_goes_back_to_where_the_rate_began_to_fall(whole: Path, tmp_path: Path) -> None:
    train(tmp_path / "a")
    assert Checkpoint.load(tmp_path / "a" / STABLE).step == 9
    longer = train(tmp_path / "a", images=160)
    assert longer is not None
    assert longer["images"] == 160
    train(tmp_path / "b", images=160)
    assert_same(state(tmp_path / "a"), state(tmp_path / "b"))


def test_a_shortened_run_begins_to_fall_at_once(tmp_path: Path) -> None:
    train(tmp_path, images=800, stop_at=72)
    short = train(tmp_path, images=88)
    assert short is not None
    assert short["images"] == 88
    assert Checkpoint.load(tmp_path / STABLE).step == state(tmp_path).decay_from == 9, "planned anew it would begin at step 8"
    rates = [json.loads(line)["learning_rate"] for line in (tmp_path / HISTORY).read_text().splitlines()]
    assert rates == pytest.approx([0.002, 0.002, 0.002 * (1 - 0.5**0.5)])


def test_a_shortened_run_resumes_in_its_fall_to_the_bit(tmp_path: Path) -> None:
    for name in ("a", "b"):
        train(tmp_path / name, images=800, stop_at=40)
    train(tmp_path / "a", images=80)
    train(tmp_path / "b", images=80, stop_at=64)
    train(tmp_path / "b")
    assert_same(state(tmp_path / "a"), state(tmp_path / "b"))


def test_fewer_faces_than_were_seen_are_refused(tmp_path: Path) -> None:
    train(tmp_path, images=800, stop_at=40)
    with pytest.raises(RunError, match="has seen 40 faces already"):
        train(tmp_path, images=24)


def test_a_finished_training_is_not_scored_again(whole: Path) -> None:
    path = whole / RESULT
    before = path.stat().st_mtime_ns
    assert train(whole) == json.loads(path.read_text())
    assert path.stat().st_mtime_ns == before


def test_other_weights_after_as_many_faces_are_scored_anew(tmp_path: Path) -> None:
    first, second = lengthen_break_and_shorten(tmp_path)
    now = state(tmp_path)
    assert first["images"] == second["images"] == now.step * 8 == 96
    assert first["weights"] != second["weights"] == sha256(now.averages())
    assert second["validation"]["ferplus"]["loss"] == now.history[-1]["validation"]["ferplus"]["loss"]
    assert second["validation"]["ferplus"]["loss"] != first["validation"]["ferplus"]["loss"]
    assert second["decay_images"] == 16 != first["decay_images"]
    assert json.loads((tmp_path / RESULT).read_text()) == second


def test_a_result_that_outlived_its_checkpoints_is_not_given_for_the_next_training(whole: Path, tmp_path: Path) -> None:
    shutil.copy(whole / RESULT, tmp_path / RESULT)
    found = train(tmp_path, recipe=TINY.model_copy(update={"seed": 1}))
    assert found is not None
    assert found["recipe"]["seed"] == 1
    assert found["weights"] == sha256(state(tmp_path).averages())


def test_a_damaged_result_is_scored_anew(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "run")
    (tmp_path / "run" / RESULT).write_text("{")
    assert train(tmp_path / "run") == json.loads((whole / RESULT).read_text())


OTHERS = {
    "training": Splits(faces(40, 4), faces(16, 2), faces(16, 3)),
    "public": Splits(faces(40, 1), faces(16, 4), faces(16, 3)),
    "private": Splits(faces(40, 1), faces(16, 2), faces(17, 3)),
}


@pytest.mark.parametrize("which", OTHERS)
@pytest.mark.parametrize("stop_at", [None, 40], ids=["finished", "unfinished"])
def test_other_faces_than_the_folder_was_trained_on_are_refused(tmp_path: Path, stop_at: int | None, which: str) -> None:
    train(tmp_path, stop_at=stop_at)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.name != "lock"}
    for images in (None, 160):
        with pytest.raises(RunError, match="a training on other faces than these; give the --data that it began with"):
            train(tmp_path, images=images, data=OTHERS[which])
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.name != "lock"} == before


@pytest.mark.parametrize("stop_at", [None, 40], ids=["finished", "unfinished"])
def test_a_folder_of_the_first_version_is_held_to_the_faces_of_its_next_call(
    whole: Path, tmp_path: Path, stop_at: int | None
) -> None:
    train(tmp_path, stop_at=stop_at)
    make_first_version(tmp_path)
    notes: list[str] = []
    found = train(tmp_path, notes=notes)
    assert any("did not say which faces" in note for note in notes)
    theirs = json.loads((whole / RESULT).read_text())
    assert found is not None
    assert {**found, "seconds": 0} == {**theirs, "seconds": 0}
    assert state(tmp_path).data == splits().digest()
    assert train(tmp_path, notes=(again := [])) == found
    assert not any("did not say which faces" in note for note in again)
    with pytest.raises(RunError, match="on other faces"):
        train(tmp_path, data=OTHERS["training"])


def test_a_folder_of_the_first_version_whose_result_counts_other_faces_is_refused(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "run")
    make_first_version(tmp_path / "run")
    with pytest.raises(RunError, match="on other faces"):
        train(tmp_path / "run", data=OTHERS["private"])
    assert state(tmp_path / "run").data is None
    assert train(tmp_path / "run") is not None


def test_a_folder_of_the_first_version_goes_back_and_keeps_its_faces(tmp_path: Path) -> None:
    train(tmp_path)
    make_first_version(tmp_path)
    assert train(tmp_path, images=160, stop_at=80) is None
    assert state(tmp_path).data == splits().digest()
    with pytest.raises(RunError, match="on other faces"):
        train(tmp_path, data=OTHERS["public"])


def test_two_processes_do_not_train_in_one_folder(tmp_path: Path) -> None:
    with only_process(tmp_path / "lock", "taken"), pytest.raises(RunError, match="is training in"):
        train(tmp_path)


def test_history_and_result_say_what_was_measured(whole: Path) -> None:
    lines = [json.loads(line) for line in (whole / HISTORY).read_text().splitlines()]
    assert [line["images"] for line in lines] == [32, 64, 96]
    result = json.loads((whole / RESULT).read_text())
    assert result["splits"]["PrivateTest"]["faces"] == 16
    assert result["test"]["ferplus"]["examples"] == 15, "the face without a FER+ target does not count for that head"
    assert result["test"]["fer2013"]["examples"] == 16
    assert sum(map(sum, result["test"]["fer2013"]["confusion"])) == 16
    assert result["unseen"]["test"] == {"copies": 0} | result["test"], "no face is in two splits"


def test_faces_that_training_holds_too_are_scored_apart(tmp_path: Path) -> None:
    whole = splits()
    half = len(whole.test) // 2
    mixed = np.concatenate([whole.training.images[:half], whole.test.images[half:]])
    train(tmp_path, data=replace(whole, test=replace(whole.test, images=mixed), validation=whole.training))
    result = json.loads((tmp_path / RESULT).read_text())
    assert result["unseen"]["test"]["copies"] == half
    assert result["unseen"]["test"]["fer2013"]["examples"] == len(whole.test) - half
    assert result["test"]["fer2013"]["examples"] == len(whole.test)
    assert result["unseen"]["validation"] == {"copies": len(whole.training)}, "none is left to score"


def test_a_loss_that_is_not_finite_ends_the_training_with_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no longer finite"):
        train(tmp_path, recipe=TINY.model_copy(update={"optimiser": "sgd", "learning_rate": 1e30, "warm_up": 0}))


def test_a_crash_between_the_two_files_leaves_the_older_one_to_go_on_from(whole: Path, tmp_path: Path) -> None:
    train(tmp_path, stop_at=56)
    (tmp_path / CHECKPOINT).unlink()
    assert train(tmp_path) is not None
    assert_same(state(tmp_path), state(whole))
