import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from common.errors import DataError
from models.detector import grid
from models.detector.grid import GridDetector
from models.detector.levels import LEVELS, MODEL_FILE
from models.detector.network import GridNetwork
from models.detector.scenes import Scene, SceneMaker, SceneSettings, drawn_background
from models.detector.training import MINED_FROM, Course, backgrounds_from, export, lit, loss, mined, targets, train

FACES = np.random.default_rng(0).integers(0, 256, (5, 48, 48), dtype=np.uint8)


def maker(seed: int = 0, **settings: float) -> SceneMaker:
    rng = np.random.default_rng(7)
    return SceneMaker(FACES, [drawn_background(rng) for _ in range(4)], SceneSettings(**settings), np.random.default_rng(seed))


def test_scenes_follow_their_seed_and_keep_to_their_settings() -> None:
    scenes, again = ([each.scene() for _ in range(20)] for each in (maker(3), maker(3)))
    other = maker(3, least=30.0, most=40.0)
    for scene, same in zip(scenes, again, strict=True):
        assert scene.picture.shape == (128, 128)
        assert scene.picture.dtype == np.uint8
        np.testing.assert_array_equal(scene.picture, same.picture)
    sides = np.concatenate([other.scene().faces[:, 2] for _ in range(20)])
    assert len(sides) > 5
    assert 30 <= sides.min() <= sides.max() <= 40


def test_a_scene_without_a_place_for_faces_has_none() -> None:
    scene = maker(part_faces=0.0).scene()
    assert scene.faces.shape == (0, 3)


@pytest.mark.parametrize("level", LEVELS)
def test_the_targets_lead_back_to_the_face(level: object) -> None:
    for at in LEVELS:
        side = float(np.sqrt(at.least * at.most))
        scene = Scene(np.zeros((128, 128), np.uint8), np.array([[61.0, 67.0, side]], np.float32))
        wanted, weights = targets(scene, at, 128)
        rows, columns = np.nonzero(wanted[0])
        assert len(rows) >= 1
        assert (weights[:, rows, columns] == 1).all()
        found = at.side * np.exp(wanted[3, rows, columns])
        np.testing.assert_allclose(found, side, rtol=1e-5)
        np.testing.assert_allclose((columns + 0.5) * at.stride + wanted[1, rows, columns] * found, 61, rtol=1e-4)
        np.testing.assert_allclose((rows + 0.5) * at.stride + wanted[2, rows, columns] * found, 67, rtol=1e-4)


def test_a_face_that_another_level_finds_counts_neither_for_nor_against() -> None:
    fine = LEVELS[0]
    scene = Scene(np.zeros((128, 128), np.uint8), np.array([[64.0, 64.0, 120.0]], np.float32))
    wanted, weights = targets(scene, fine, 128)
    assert wanted[0].sum() == 0
    assert weights[0, 8, 8] == 0
    assert weights[0, 0, 0] == 1


def test_right_answers_cost_next_to_nothing_and_wrong_ones_more() -> None:
    scene = Scene(np.zeros((128, 128), np.uint8), np.array([[64.0, 64.0, 60.0]], np.float32))
    wanted, weights = (torch.from_numpy(part)[None] for part in targets(scene, LEVELS[1], 128))
    right = wanted.clone()
    right[:, 0] = 20 * wanted[:, 0] - 10
    wrong = right.clone()
    wrong[:, 0] = -wrong[:, 0]
    assert loss(right, wanted, weights).item() < 1e-3
    assert loss(wrong, wanted, weights).item() > 1


@pytest.fixture(scope="module")
def exported() -> tuple[GridNetwork, bytes]:
    """A network that learned nothing to speak of, and its file."""
    torch.set_num_threads(1)
    course = Course(steps=3, batch=2, mine_every=2, mine=3)
    network = train(FACES, backgrounds_from(None, 0, drawn=3), course, seed=0)
    return network, export(network)


def test_the_exported_file_agrees_with_torch_at_sizes_it_was_not_traced_at(exported: tuple[GridNetwork, bytes]) -> None:
    from models.onnx_session import open_session

    network, content = exported
    session = open_session(content, "the network")
    picture = np.random.default_rng(0).integers(0, 256, (1, 1, 96, 160)).astype(np.float32)
    with torch.inference_mode():
        expected = network(lit(torch.from_numpy(picture)))
    for mine, theirs in zip(session.run(["fine", "coarse"], {"picture": picture}), expected, strict=True):
        np.testing.assert_allclose(mine, theirs.numpy(), atol=1e-4)


def test_an_ordinary_picture_passes_as_it_is_and_a_dark_one_gets_the_same_contrast() -> None:
    picture = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(0)) * 200
    torch.testing.assert_close(lit(picture), picture / 127.5 - 1)
    dark = lit(picture * 0.1)
    assert dark.std().item() == pytest.approx(30 / 127.5, rel=0.2)
    assert abs(dark.mean().item()) < 0.3
    assert torch.isfinite(lit(torch.zeros(1, 1, 64, 64))).all()


def test_what_deceives_the_network_is_cut_out_around_the_place(exported: tuple[GridNetwork, bytes]) -> None:
    """A network that takes every bright spot for a face finds the spot, and a network that takes nothing for one finds none."""

    class Bright(GridNetwork):
        def forward(self, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            maps = [torch.nn.functional.avg_pool2d(pictures, level.stride).repeat(1, 4, 1, 1) for level in LEVELS]
            return 20 * maps[0] - 10, 20 * maps[1] - 10

    ground = np.zeros((200, 300), dtype=np.uint8)
    ground[120:136, 200:216] = 255
    rng = np.random.default_rng(0)
    sections = mined(Bright(), [ground], rng, 128, 6)
    assert len(sections) == 6
    assert all(section.shape == (128, 128) and section.max() == 255 for section in sections)
    assert MINED_FROM < 0
    assert mined(Bright(), [np.full((160, 160), 90, dtype=np.uint8)], rng, 128, 3) == []


def test_training_ends_in_time_and_follows_its_seed() -> None:
    grounds = backgrounds_from(None, 0, drawn=3)
    steps: list[int] = []
    train(FACES, grounds, Course(minutes=1e-9, batch=2), seed=0, say=lambda step, loss, network: steps.append(step))
    assert len(steps) <= 1
    first, again = (train(FACES, grounds, Course(steps=2, batch=2, mine_every=0), seed=4).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_backgrounds_are_read_whatever_their_names(tmp_path: Path) -> None:
    picture = np.random.default_rng(1).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    written, content = cv2.imencode(".png", picture)
    assert written
    strange = tmp_path / os.fsdecode(b"garden-\xe9.png")
    strange.write_bytes(content.tobytes())
    found = backgrounds_from(tmp_path, 0, drawn=3)
    assert {ground.shape for ground in found[3:]} == {(300, 400), (165, 220)}
    strange.write_bytes(b"")
    with pytest.raises(DataError, match=r"garden-�\.png is not a picture"):
        backgrounds_from(tmp_path, 0, drawn=3)
    strange.unlink()
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match="folder is not a picture"):
        backgrounds_from(tmp_path, 0, drawn=3)


def test_the_detector_reads_the_two_grids_as_they_were_taught(
    exported: tuple[GridNetwork, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / MODEL_FILE).write_bytes(exported[1])
    monkeypatch.setattr(grid, "files", lambda package: tmp_path)
    detector = GridDetector(256)
    truth = [
        Scene(np.zeros((256, 256), np.uint8), np.array([[*middle, side]], np.float32))
        for middle, side in (((60, 70), 30), ((160, 128), 120))
    ]

    class Answers:
        def run(self, names: list[str], inputs: dict[str, NDArray[np.float32]]) -> list[NDArray[np.float32]]:
            assert inputs["picture"].shape == (1, 1, 256, 256)
            maps = []
            for level in LEVELS:
                wanted = [targets(scene, level, 256)[0] for scene in truth]
                one = sum(wanted)
                one[0] = np.where(one[0] > 0, 6.0, -6.0)
                maps.append(one[None])
            return maps

    detector._session = Answers()
    small, large = detector.detect(np.zeros((512, 512, 3), dtype=np.uint8))
    assert small.box == (90, 110, 60, 60)
    assert large.box == (200, 136, 240, 240)
    assert small.keypoints is None
