"""What makes a face usable, and when two are the same: on patterns here, on real faces in the slow test."""

import csv

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.faces.quality import (
    ALIKE,
    BLURRED,
    COPIED,
    Flaw,
    alike,
    bits_apart,
    fingerprint,
    flaw_of,
    judged,
    sharpness,
)

PRINTS = st.lists(st.binary(min_size=16, max_size=16), min_size=1, max_size=12).map(
    lambda rows: np.stack([np.frombuffer(row, dtype=np.uint8) for row in rows])
)


def pattern(seed: int, side: int = 96, cells: int = 24) -> np.ndarray:
    cells_ = np.random.default_rng(seed).integers(40, 216, (cells, cells), dtype=np.uint8)
    return cv2.resize(cells_, (side, side), interpolation=cv2.INTER_NEAREST)


@settings(max_examples=40, deadline=None)
@given(PRINTS)
def test_distance_is_a_metric(prints):
    table = np.stack([bits_apart(prints, row) for row in prints])
    assert (np.diag(table) == 0).all()
    np.testing.assert_array_equal(table, table.T)
    assert (table[:, None, :] <= table[:, :, None] + table[None]).all()


@settings(max_examples=40, deadline=None)
@given(PRINTS, st.randoms(use_true_random=False))
def test_sets_of_like_pictures_share_no_row_and_hold_whatever_a_chain_connects(prints, random):
    labels = [random.randrange(2) for _ in prints]
    sets = alike(prints, labels)
    rows = [row for rows in sets for row in rows]
    assert len(rows) == len(set(rows))
    assert all(len(rows) > 1 and list(rows) == sorted(rows) for rows in sets)
    belongs = {row: number for number, rows in enumerate(sets) for row in rows}
    for a in range(len(prints)):
        for b in range(a):
            if bits_apart(prints[[a]], prints[b])[0] <= (ALIKE if labels[a] == labels[b] else COPIED):
                assert belongs[a] == belongs[b]


def test_a_chain_of_likeness_is_one_set_and_other_emotions_need_more():
    base = np.zeros(16, dtype=np.uint8)
    step = base.copy()
    step[0] = 255
    far = step.copy()
    far[1] = 255
    prints = np.stack([base, far, step])
    assert alike(prints, [0, 0, 0]) == [(0, 1, 2)]
    assert alike(prints, [0, 0, 1]) == []
    assert alike(np.stack([base, base]), [0, 1]) == [(0, 1)]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 50), st.floats(0.6, 1.0), st.integers(0, 20))
def test_a_fingerprint_forgets_contrast_and_brightness(seed, contrast, brightness):
    face = pattern(seed)
    changed = np.clip(face * contrast + brightness, 0, 255).astype(np.uint8)
    assert bits_apart(fingerprint(face)[None], fingerprint(changed))[0] <= ALIKE


def test_different_faces_are_far_apart_and_a_shift_is_seen():
    assert bits_apart(fingerprint(pattern(1))[None], fingerprint(pattern(2)))[0] > 2 * ALIKE
    assert bits_apart(fingerprint(pattern(1))[None], fingerprint(np.roll(pattern(1), 12, axis=1)))[0] > ALIKE


@pytest.mark.parametrize("side", [48, 96, 200])
def test_sharpness_falls_with_blur_and_not_with_contrast(side):
    face = pattern(3, side)
    blurred = [sharpness(cv2.GaussianBlur(face, (0, 0), radius * side / 48)) for radius in (0.5, 1.0, 1.5)]
    assert sharpness(face) > blurred[0] > blurred[1] > blurred[2]
    assert sharpness((face // 2 + 60).astype(np.uint8)) == pytest.approx(sharpness(face), rel=0.05)


def test_each_flaw_is_told():
    face = pattern(4)
    smooth = cv2.resize(pattern(4, 3, 3), (96, 96), interpolation=cv2.INTER_CUBIC)
    for picture, size, flaw in (
        (face, (96, 96), None),
        (face, (31, 96), Flaw.SMALL),
        (face // 10, (96, 96), Flaw.DARK),
        (255 - face // 10, (96, 96), Flaw.BRIGHT),
        (100 + face // 64, (96, 96), Flaw.FLAT),
        (smooth, (96, 96), Flaw.BLURRED),
    ):
        assert flaw_of(picture.astype(np.uint8), *size) is flaw


@pytest.mark.slow
def test_the_bounds_fit_real_faces(official_csvs):
    """What the constants' docstrings claim, on 4,000 faces of FER2013."""
    with (official_csvs / "fer2013.csv").open() as file:
        rows = [row for row, _ in zip(csv.DictReader(file), range(4000), strict=False)]
    faces = [np.array(row["pixels"].split(), dtype=np.uint8).reshape(48, 48) for row in rows]
    faces = [face for face in faces if face.any()]
    sharp = np.array([sharpness(face) for face in faces])
    blurred = np.array([sharpness(cv2.GaussianBlur(face, (0, 0), 1.5)) for face in faces])
    assert (sharp < BLURRED).mean() < 0.001
    assert (blurred < BLURRED).mean() > 0.95
    prints = np.stack([fingerprint(face) for face in faces[:1500]])
    apart = np.concatenate([bits_apart(prints[:row], prints[row]) for row in range(1, len(prints))])
    assert (apart <= ALIKE).mean() < 1e-4
    noise = np.random.default_rng(0)
    noisy = [np.clip(judged(face) + noise.normal(0, 3, (48, 48)), 0, 255).astype(np.uint8) for face in faces[:500]]
    same = [bits_apart(fingerprint(face)[None], fingerprint(again))[0] for face, again in zip(faces, noisy, strict=False)]
    assert np.mean(np.array(same) <= ALIKE) > 0.99
