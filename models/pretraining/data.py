"""FER2013 with FER+'s votes as one training set with two kinds of labels, and the two public sets for evaluation."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from common.emotions import EMOTIONS_8
from common.errors import DataError
from models.faces.fer2013 import Usage, read_rows
from models.faces.ferplus import WHERE, check_pairs, judge, read_votes

FERPLUS: Final = "ferplus"
FER2013: Final = "fer2013"
"""Names of the two heads and of their figures."""


@dataclass(frozen=True)
class TwiceLabelled:
    """Faces with both label sets.

    Attributes:
        images: (N, 48, 48) uint8 grey.
        votes: (N, 8) float32 over EMOTIONS_8, each row a distribution, or zeros where FER+ gives no target.
        labels: (N,) int64 index into EMOTIONS_7.
    """

    images: NDArray[np.uint8]
    votes: NDArray[np.float32]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.images)

    @property
    def voted(self) -> NDArray[np.bool_]:
        """(N,) whether the face has a FER+ target."""
        return np.asarray(self.votes.any(axis=1), dtype=np.bool_)

    def take(self, rows: NDArray[np.bool_]) -> "TwiceLabelled":
        """The faces of these rows."""
        return TwiceLabelled(self.images[rows], self.votes[rows], self.labels[rows])

    def copies_of(self, known: "TwiceLabelled") -> NDArray[np.bool_]:
        """(N,) whether the face is, pixel for pixel, among `known` too: FER2013 holds some pictures in two of its splits."""
        seen = {image.tobytes() for image in known.images}
        return np.array([image.tobytes() in seen for image in self.images], dtype=np.bool_)

    def ferplus_counts(self) -> dict[str, int]:
        """Number of faces with a FER+ target, by its largest share."""
        counts = np.bincount(self.votes[self.voted].argmax(1), minlength=len(EMOTIONS_8))
        return {name: int(count) for name, count in zip(EMOTIONS_8, counts, strict=True)}


@dataclass(frozen=True)
class Splits:
    """Train on the first, choose on the second (PublicTest), report on the third (PrivateTest)."""

    training: TwiceLabelled
    validation: TwiceLabelled
    test: TwiceLabelled

    def digest(self) -> str:
        """SHA-256 of all faces and labels in their order: what a training may go on with."""
        found = hashlib.sha256()
        for split in (self.training, self.validation, self.test):
            for array in (split.images, split.votes, split.labels):
                found.update(f"{array.dtype.str} {array.shape}\n".encode())
                found.update(np.ascontiguousarray(array).data)
        return found.hexdigest()


def load_splits(path: Path, ferplus_rows: Literal["majority", "votes"] = "votes") -> Splits:
    """Kaggle's fer2013.csv and FER+'s fer2013new.csv beside it; all-black rows are left out.

    Validation and test have FER+ targets on the M8 rows alone, see `models.faces.ferplus.judge`.

    Args:
        path: fer2013.csv, or the folder that holds both files.
        ferplus_rows: which training rows have a FER+ target, see `Recipe`.

    Raises:
        DataError: a file is missing or malformed, they do not pair row for row, or a split is empty.
    """
    table = path / "fer2013.csv" if path.is_dir() else path
    ballots = table.with_name("fer2013new.csv")
    if table.is_file() and not ballots.exists():
        raise DataError(f"The base model needs fer2013new.csv beside {table}, and it is not there; {WHERE}.")
    rows = read_rows(table)
    usages, votes = read_votes(ballots)
    check_pairs(table, rows.usages, ballots, usages)
    split = np.array(rows.usages)

    def take(usage: Usage, which: Literal["majority", "votes"]) -> TwiceLabelled:
        at = np.flatnonzero((split == usage) & ~rows.black)
        if not len(at):
            raise DataError(f"{table} holds no face of {usage}.")
        targets = judge(votes[at], "soft")[0] if which == "majority" else vote_shares(votes[at])
        return TwiceLabelled(rows.images[at], targets, rows.labels[at])

    return Splits(take("Training", ferplus_rows), take("PublicTest", "majority"), take("PrivateTest", "majority"))


def vote_shares(votes: NDArray[np.int64]) -> NDArray[np.float32]:
    """(N, 10) votes -> (N, 8) shares of the emotions' votes, single ones zeroed; zeros where they are not above half of all."""
    counted = np.where(votes <= 1, 0, votes)
    emotions = counted[:, : len(EMOTIONS_8)]
    mass = emotions.sum(1)
    used = 2 * mass > counted.sum(1)
    targets = np.zeros(emotions.shape, dtype=np.float32)
    targets[used] = emotions[used] / mass[used, None]
    return targets
