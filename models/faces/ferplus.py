"""FER+'s fer2013new.csv beside Kaggle's fer2013.csv, read into a `FaceSet` of eight emotions with the votes of ten people.

Simulation, training and public evaluation call it. The votes come from github.com/microsoft/FERPlus (Barsoum et al. 2016,
arXiv:1608.01041); that file holds no pictures and pairs row for row with fer2013.csv.
"""

import csv
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from common.emotions import EMOTIONS_8
from common.errors import ConfigError, DataError
from models.faces.faceset import FaceSet, one_hot
from models.faces.fer2013 import Usage, read_rows
from models.faces.report import RowReport, printable

VOTES = (*EMOTIONS_8, "unknown", "NF")
"""FER+'s ten columns; NF is "not a face"."""

Rule = Literal["majority", "plurality", "soft"]

WHERE = "fer2013new.csv comes from github.com/microsoft/FERPlus"

_HEADER = ["usage", "image name", *(name.lower() for name in VOTES)]
_USED, _UNDECIDED, _UNKNOWN, _NO_FACE, _BLACK = range(5)
_REASONS = {
    _UNDECIDED: "no label wins",
    _UNKNOWN: "voted unknown",
    _NO_FACE: "voted not a face",
    _BLACK: "all black",
}


def read_ferplus(
    fer2013_csv: Path, fer2013new_csv: Path, usage: Usage | None = None, rule: Rule = "soft"
) -> tuple[FaceSet, RowReport]:
    """The faces of one usage (None: all) that `rule` keeps, in the file's order, classes EMOTIONS_8.

    Say the rule beside every figure. On the official files they keep 25,060 / 3,199 / 3,153 rows (majority, soft: "M8")
    and 28,389 / 3,553 / 3,546 rows (plurality: "A8") of Training / PublicTest / PrivateTest. See `judge` for the rules.

    Raises:
        DataError: a file is missing or malformed, the two do not pair row for row, or no face is kept.
        ConfigError: unknown `usage` or `rule`.
    """
    if rule not in get_args(Rule):
        raise ConfigError(f"Unknown FER+ rule {rule!r}: choose {', '.join(get_args(Rule))}.")
    usages, votes = read_votes(fer2013new_csv)
    rows = read_rows(fer2013_csv, usage)
    check_pairs(fer2013_csv, rows.usages, fer2013new_csv, usages)
    targets, verdict = judge(votes[rows.at], rule)
    verdict = np.where((verdict == _USED) & rows.black, _BLACK, verdict)
    report = RowReport(f"{printable(fer2013new_csv.name)} ({usage or 'all splits'}, {rule})", len(verdict), ())
    for code, reason in _REASONS.items():
        report = report.without(reason, int(np.count_nonzero(verdict == code)))
    kept = np.flatnonzero(verdict == _USED)
    if not len(kept):
        raise DataError(f"{fer2013new_csv} leaves no usable face: {report.sentence}")
    return FaceSet(rows.images[kept], targets[kept], EMOTIONS_8), report


def judge(votes: NDArray[np.int64], rule: Rule) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """(N, 10) votes -> (N, 8) targets over EMOTIONS_8, and (N,) verdicts: 0 used, else why not. Unused targets are 0.

    "majority": as in the FER+ reference code a label with a single vote counts as an outlier and is zeroed; a row is used
    if its largest remaining vote is an emotion and more than half of what remains. One-hot target.

    "plurality": a row is used if the largest of the ten raw votes is an emotion; of equal ones the first column wins.
    One-hot target.

    "soft": the rows of "majority"; the target is the remaining votes of the eight emotions, scaled to sum to 1. The votes
    are ten people's answers to the very question the model is asked, so their shares are the distribution it should give,
    and the paper trains better with it than with the winner alone. Single votes stay zeroed, because one careless tagger
    in ten is no evidence. Votes for unknown and NF are dropped, because the model has no such class: what is left is the
    distribution given that it is one of the eight. The largest entry is always majority's winner, so accuracy on "soft"
    and on "majority" is the same figure.
    """
    counted = votes if rule == "plurality" else np.where(votes <= 1, 0, votes)
    total, winner = counted.sum(1), counted.argmax(1)
    decided = (total > 0) if rule == "plurality" else 2 * counted.max(1) > total
    verdict = np.select(
        [~decided, winner == VOTES.index("unknown"), winner == VOTES.index("NF")],
        [_UNDECIDED, _UNKNOWN, _NO_FACE],
        default=_USED,
    )
    used = verdict == _USED
    targets = np.zeros((len(votes), len(EMOTIONS_8)), dtype=np.float32)
    if rule == "soft":
        emotions = counted[used, : len(EMOTIONS_8)]
        targets[used] = emotions / emotions.sum(1, keepdims=True)
    else:
        targets[used] = one_hot(winner[used], len(EMOTIONS_8))
    return targets, verdict


def read_votes(path: Path) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """The usage of each row, and (rows, 10) votes."""
    if not path.exists():
        raise DataError(f"There is no file {path}; {WHERE}.")
    usages, votes = list[str](), list[list[int]]()
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            table = csv.reader(file)
            if [name.strip().lower() for name in next(table, [])] != _HEADER:
                raise DataError(
                    f"{path} does not begin with the header Usage,Image name,{','.join(VOTES)}, so it is not FER+'s "
                    f"file; {WHERE}."
                )
            for row in table:
                if not row:
                    continue
                counts = [field.strip() for field in row[2:]]
                if len(counts) != len(VOTES) or not all(c.isascii() and c.isdigit() and len(c) < 4 for c in counts):
                    raise DataError(
                        f"{path}, line {table.line_num}: a usage, a name and {len(VOTES)} whole numbers of votes expected."
                    )
                usages.append(row[0].strip())
                votes.append([int(count) for count in counts])
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}).") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not a CSV file in UTF-8, so it is not FER+'s file; {WHERE}.") from error
    return tuple(usages), np.array(votes, dtype=np.int64).reshape(-1, len(VOTES))


def check_pairs(faces: Path, faces_usages: tuple[str, ...], votes: Path, votes_usages: tuple[str, ...]) -> None:
    remedy = "They must pair row for row: use both files as they were published"
    if len(faces_usages) != len(votes_usages):
        raise DataError(f"{faces} has {len(faces_usages):,} rows and {votes} has {len(votes_usages):,}. {remedy}.")
    if faces_usages != votes_usages:
        row = next(i for i, (a, b) in enumerate(zip(faces_usages, votes_usages, strict=True)) if a != b)
        raise DataError(
            f"Row {row + 1:,} is {faces_usages[row]} in {faces} and {printable(votes_usages[row][:40])} in {votes}. {remedy}."
        )
