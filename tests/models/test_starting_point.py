from pathlib import Path

import numpy as np
import pytest

import models.starting_point as module
from common.config import make_config
from common.errors import IntegrityError, ModelError
from models.mobilenet import build_model
from models.pretrained import open_base
from models.starting_point import StartingPoint, base_fits, choose_start, starting_point
from tests.models.pretraining.test_shipping import base, run

SHIPPED = (base, run)
"""The fixture `base`: the folder of a small shipped base model."""


@pytest.fixture
def small_base(base: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """A small base model in place of the one that ships; the model settings that it fits."""
    monkeypatch.setattr(module, "open_base", lambda folder=base: open_base(folder))
    manifest = open_base(base).manifest
    return {"name": manifest.variant, "stem_stride": manifest.stem_stride}


def test_the_base_is_what_a_run_begins_from_where_it_fits(small_base: dict[str, object]) -> None:
    assert choose_start({"model": small_base}).init == "base"
    assert choose_start({"model": small_base, "init": "scratch"}).init is None
    assert choose_start({"model": {"name": "mobilenet_v2_100"}}).init is None


def test_the_base_gives_weights_and_says_what_it_learnt_from(small_base: dict[str, object]) -> None:
    config = make_config({"model": small_base, "init": "base"})
    start = starting_point(config)
    assert start.weights is not None
    assert set(start.weights) == {name for name, _ in build_model(config.model).named_parameters()}
    assert start.manifest is None
    assert "public" in str(start.public_data)
    assert start.name.startswith("base model")


def test_a_base_of_another_network_is_refused_in_a_sentence(small_base: dict[str, object]) -> None:
    config = make_config({"model": {"name": "mobilenet_v2_100"}, "init": "base"})
    assert not base_fits(config)
    with pytest.raises(ModelError, match="cannot start mobilenet_v2_100"):
        starting_point(config)


def test_from_scratch_there_is_nothing() -> None:
    assert starting_point(make_config({})) == StartingPoint()


def test_a_path_is_kept_as_an_absolute_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert choose_start({"init": "registry"}).init == tmp_path / "registry"


def test_the_weights_are_the_callers_own(small_base: dict[str, object]) -> None:
    config = make_config({"model": small_base, "init": "base"})
    first, second = starting_point(config).weights, starting_point(config).weights
    assert first is not None
    assert second is not None
    name = next(iter(first))
    first[name] += 1
    assert not np.array_equal(first[name], second[name])


def test_a_base_of_ones_own_starts_a_run_from_its_folder(small_base: dict[str, object], base: Path) -> None:
    ours, shipped = (starting_point(make_config({"model": small_base, "init": init})).weights for init in (str(base), "base"))
    assert ours is not None
    assert shipped is not None
    assert all((ours[name] == shipped[name]).all() for name in shipped)


def test_an_altered_base_of_ones_own_is_refused(small_base: dict[str, object], base: Path) -> None:
    (base / "base.safetensors").write_bytes((base / "base.safetensors").read_bytes()[:-1] + b"\x00")
    with pytest.raises(IntegrityError, match="altered"):
        starting_point(make_config({"model": small_base, "init": str(base)}))
