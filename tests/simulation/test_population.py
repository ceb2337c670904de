"""Faces dealt to devices: who holds what, and that nothing is read twice."""

from pathlib import Path

import numpy as np
import pytest

from common.config import DataConfig, ModelConfig
from models.faces.faceset import FaceSet
from simulation import population as population_module
from simulation.drawn_folder import draw_folder
from simulation.population import StoredFaces, make_population


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("faces") / "drawn"
    draw_folder(path, 140, people=5, seed=3)
    return path


def test_a_folder_of_pictures_is_decoded_once_and_split_without_overlap(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Path] = []
    real = population_module.open_faces

    def counted(path: Path, **options: object) -> tuple[FaceSet, str]:
        calls.append(path)
        return real(path, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(population_module, "open_faces", counted)
    made = make_population(DataConfig(path=pictures, clients=2, scheme="iid"), ModelConfig(), 5)
    assert calls == [pictures]
    assert (len(made.test), len(made.validation), len(made.faces)) == (14, 14, 112)
    images = np.concatenate([part.images.reshape(len(part), -1) for part in (made.faces, made.validation, made.test)])
    everything = real(pictures)[0].images.reshape(140, -1)
    assert sorted(map(bytes, images)) == sorted(map(bytes, everything))


def test_training_holdout_validation_and_test_never_share_a_face() -> None:
    made = make_population(DataConfig(drawn=300, clients=4, holdout=0.2), ModelConfig(), 1)
    rows = np.concatenate([*made.training, *made.holdout])
    assert sorted(rows) == list(range(300))
    images = [part.images.reshape(len(part), -1) for part in (made.faces, made.validation, made.test)]
    assert len(np.unique(np.concatenate(images), axis=0)) == sum(map(len, images))


def test_it_is_said_of_how_many_people_faces_were_drawn() -> None:
    made = make_population(DataConfig(drawn=100, clients=3), ModelConfig(), 1)
    assert len(np.unique(made.faces.people)) == 7
    assert made.notes == ("100 drawn faces of 7 people; test faces are of other people.",)


def test_faces_in_files_are_those_of_the_population(tmp_path: Path) -> None:
    population = make_population(DataConfig(drawn=120, clients=3), ModelConfig(), 1)
    stored = StoredFaces.write(population, tmp_path)
    for number in range(3):
        own, found = population.device(number), stored(number)
        assert np.array_equal(found.images, own.images)
        assert np.array_equal(found.targets, own.targets)
        assert found.classes == own.classes
