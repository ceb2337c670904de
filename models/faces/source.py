"""One way to open faces, whatever form they have: fer2013.csv with its own or FER+'s labels, or a folder per emotion.

fl-sim, the server's public evaluation set and fl-client call it.
"""

from pathlib import Path
from typing import Literal, get_args

import numpy as np

from common.emotions import EMOTIONS_7, EMOTIONS_8
from common.errors import ConfigError, DataError
from models.faces import fer2013, ferplus
from models.faces.faceset import FaceSet
from models.faces.fer2013 import Usage, read_fer2013, require_usage
from models.faces.ferplus import Rule, read_ferplus
from models.faces.folder import read_folder
from models.faces.report import Reason
from models.preprocess import Preprocessing

Labels = Literal["fer2013", "ferplus", "ferplus-majority", "ferplus-plurality"]
"""Kaggle's seven classes; or FER+'s eight with soft targets on the majority rows, one-hot on them, one-hot on the
plurality rows."""

_RULES: dict[str, Rule] = {"ferplus": "soft", "ferplus-majority": "majority", "ferplus-plurality": "plurality"}


def open_faces(
    path: Path,
    *,
    labels: Labels = "fer2013",
    usage: Usage | None = None,
    classes: tuple[str, ...] | None = None,
    preprocessing: Preprocessing | None = None,
) -> tuple[FaceSet, str]:
    """The faces in `path`, (N, size, size), and one sentence that says what was used and what was left out.

    Args:
        path: fer2013.csv, a folder that holds it (FER+'s fer2013new.csv is looked for beside it), or a folder with one
            folder of pictures per emotion. A folder that holds fer2013.csv is read as that.
        labels: whose labels a CSV gets, ignored for folders of pictures, whose names are their labels.
        usage: split of a CSV, None for all. Folders of pictures have no splits: all of it is used, and the sentence says so.
        classes: the model's classes, in its order; None: EMOTIONS_7 with "fer2013", else EMOTIONS_8. Faces of other
            emotions are left out and counted.
        preprocessing: sets the size of the faces; None: its defaults.

    Raises:
        DataError: nothing is there, it is malformed, or no face is usable.
        ConfigError: unknown `labels` or `usage`.
    """
    if labels not in get_args(Labels):
        raise ConfigError(f"Unknown labels {labels!r}: choose {', '.join(get_args(Labels))}.")
    require_usage(usage)
    preprocessing = preprocessing or Preprocessing()
    classes = classes or (EMOTIONS_7 if labels == "fer2013" else EMOTIONS_8)
    table = path / "fer2013.csv" if path.is_dir() else path
    if table.is_file():
        return _open_table(table, labels, usage, classes, preprocessing)
    if not path.is_dir():
        raise DataError(
            f"There is no {path}: give fer2013.csv, a folder that holds it, or a folder with pictures in one folder per "
            f"emotion; {fer2013.WHERE}."
        )
    faces, report = read_folder(path, preprocessing, classes)
    splitless = f" A folder of pictures has no splits, so all of it stands for {usage}." if usage else ""
    return faces, report.sentence + splitless


def _open_table(
    table: Path, labels: Labels, usage: Usage | None, classes: tuple[str, ...], preprocessing: Preprocessing
) -> tuple[FaceSet, str]:
    if labels == "fer2013":
        faces, report = read_fer2013(table, usage)
    else:
        votes = table.with_name("fer2013new.csv")
        if not votes.exists():
            raise DataError(f"FER+ labels need fer2013new.csv beside {table}, and it is not there; {ferplus.WHERE}.")
        faces, report = read_ferplus(table, votes, usage, _RULES[labels])
    fitted = faces.with_classes(classes)
    report = report.without(Reason.UNUSED_EMOTION, len(faces) - len(fitted))
    if not len(fitted):
        raise DataError(f"{table} holds no face of {', '.join(classes)}: {report.sentence}")
    if preprocessing.size != fer2013.SIDE:
        resized = np.stack([preprocessing.whole(image) for image in fitted.images])
        fitted = FaceSet(resized, fitted.targets, fitted.classes)
    return fitted, report.sentence
