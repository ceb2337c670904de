import json
from pathlib import Path

import pytest

from benchmarks import architecture
from benchmarks.architecture import RECIPE, Costs, Score, Splits, kept_scores, train_all
from benchmarks.architecture_variants import VARIANTS, Variant
from common.errors import ConfigError
from models.faces.faceset import FaceSet
from simulation.synthetic_faces import draw_faces

COSTS = {
    variant.title: Costs(1, {}, 1, 1, 1.0, step, 1.0) for variant, step in zip(VARIANTS[:3], (100.0, 50.0, 200.0), strict=True)
}


@pytest.fixture
def splits() -> Splits:
    faces: FaceSet = draw_faces(8, seed=0)
    return faces, faces


def test_each_variant_trains_for_the_first_ones_time_and_is_not_trained_twice(
    tmp_path: Path, splits: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, int]] = []

    def train(variant: Variant, images: int, faces: FaceSet, test: FaceSet) -> Score:
        asked.append((variant.title, images))
        return Score(images, 1.0, 0.5, 0.25)

    monkeypatch.setattr(architecture, "train", train)
    first = train_all(list(VARIANTS[:2]), 1000, COSTS, splits, tmp_path)
    found = train_all(list(VARIANTS[:3]), 1000, COSTS, splits, tmp_path)
    assert [images for _, images in asked] == [1000, 2000, 500]
    assert found == first | {VARIANTS[2].title: Score(500, 1.0, 0.5, 0.25)}
    assert set(json.loads((tmp_path / f"{RECIPE}-1000.json").read_bytes())) == {variant.title for variant in VARIANTS[:3]}


@pytest.mark.parametrize("content", [b"{", b"[1]", b'{"V3-small": {"faces": 1}}'])
def test_a_damaged_file_of_scores_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "scores.json").write_bytes(content)
    with pytest.raises(ConfigError, match=r"scores\.json is damaged: delete it"):
        kept_scores(tmp_path / "scores.json")
