import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from common.errors import DataError
from models.pretraining.data import Splits, TwiceLabelled, load_splits, vote_shares

#        neutral happy surprise sad anger disgust fear contempt unknown NF
MAJORITY = [6, 3, 1, 0, 0, 0, 0, 0, 0, 0]
SPLIT = [3, 3, 0, 0, 4, 0, 0, 0, 0, 0]
FOREIGN = [0, 0, 0, 0, 0, 0, 0, 0, 10, 0]


def write(folder: Path, votes: list[list[int]], usages: list[str], black: int = -1) -> Path:
    with (folder / "fer2013.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["emotion", "pixels", "Usage"])
        for i, usage in enumerate(usages):
            table.writerow([i % 7, " ".join(["0" if i == black else str(i + 1)] * 2304), usage])
    with (folder / "fer2013new.csv").open("w", newline="") as file:
        table = csv.writer(file)
        names = ["neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt", "unknown", "NF"]
        table.writerow(["Usage", "Image name", *names])
        for i, (row, usage) in enumerate(zip(votes, usages, strict=True)):
            table.writerow([usage, f"fer{i:07}.png", *row])
    return folder


USAGES = ["Training"] * 4 + ["PublicTest", "PrivateTest"]


def test_a_face_carries_both_labels_and_a_row_without_votes_keeps_its_fer2013_one(tmp_path: Path) -> None:
    folder = write(tmp_path, [MAJORITY, SPLIT, FOREIGN, MAJORITY, SPLIT, MAJORITY], USAGES, black=3)
    found = load_splits(folder)
    assert found.training.labels.tolist() == [0, 1, 2], "the black row is left out"
    assert found.training.images[:, 0, 0].tolist() == [1, 2, 3]
    assert found.training.voted.tolist() == [True, True, False]
    assert found.training.votes[0].tolist() == pytest.approx([6 / 9, 3 / 9, 0, 0, 0, 0, 0, 0])
    assert found.training.votes[1].tolist() == pytest.approx([0.3, 0.3, 0, 0, 0.4, 0, 0, 0])
    assert found.training.ferplus_counts()["anger"] == 1


def test_evaluation_counts_majority_rows_alone_whatever_training_uses(tmp_path: Path) -> None:
    folder = write(tmp_path, [MAJORITY, SPLIT, FOREIGN, MAJORITY, SPLIT, MAJORITY], USAGES)
    found = load_splits(folder / "fer2013.csv", "majority")
    assert found.training.voted.tolist() == [True, False, False, True]
    assert found.validation.voted.tolist() == [False]
    assert found.test.voted.tolist() == [True]
    assert load_splits(folder, "votes").validation.voted.tolist() == [False]


def test_votes_for_emotions_must_be_more_than_half() -> None:
    votes = np.array([[5, 0, 0, 0, 0, 0, 0, 0, 5, 0], [6, 0, 0, 0, 0, 0, 0, 0, 4, 0], [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]])
    assert vote_shares(votes).sum(1).tolist() == [0, 1, 0]


def test_the_digest_is_of_all_faces_and_labels_and_of_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    rows = [MAJORITY, SPLIT, FOREIGN, MAJORITY, SPLIT, MAJORITY]
    found = load_splits(write(tmp_path, rows, USAGES))
    assert load_splits(write(tmp_path / "elsewhere", rows, USAGES)).digest() == found.digest()
    others = [Splits(found.training, found.test, found.validation)]
    for part in ("training", "validation", "test"):
        for name in ("images", "votes", "labels"):
            changed = getattr(getattr(found, part), name).copy()
            changed.flat[-1] += 1
            others.append(replace(found, **{part: replace(getattr(found, part), **{name: changed})}))
    assert len({found.digest(), *(other.digest() for other in others)}) == 11


def test_copies_are_the_faces_that_another_split_holds_to_the_pixel(tmp_path: Path) -> None:
    found = load_splits(write(tmp_path, [MAJORITY] * 6, USAGES))
    test = TwiceLabelled(found.training.images[[2, 0]], found.training.votes[[2, 0]], np.array([5, 6]))
    test.images[1, 47, 47] += 1
    assert test.take(~test.copies_of(found.training)).labels.tolist() == [6]
    assert len(found.validation.take(~found.validation.copies_of(found.training))) == 1
    assert len(found.training.take(~found.training.copies_of(found.training))) == 0


def test_missing_votes_are_named(tmp_path: Path) -> None:
    folder = write(tmp_path, [MAJORITY] * 6, USAGES)
    (folder / "fer2013new.csv").unlink()
    with pytest.raises(DataError, match="needs fer2013new"):
        load_splits(folder)


def test_a_split_without_faces_is_named(tmp_path: Path) -> None:
    folder = write(tmp_path, [MAJORITY], ["Training"])
    with pytest.raises(DataError, match="no face of PublicTest"):
        load_splits(folder)
