"""Where the real faces lie, for benchmarks and slow tests: `$EMOFL_DATA`, else `../shared/data` beside the repository."""

import os
from pathlib import Path
from typing import Annotated

import typer

from common.errors import ConfigError

Data = Annotated[
    Path | None,
    typer.Option(help="fer2013.csv with fer2013new.csv beside it. Default: in $EMOFL_DATA, else in ../shared/data."),
]


def real_folder() -> Path:
    """The folder; it need not exist."""
    return Path(os.environ.get("EMOFL_DATA") or Path(__file__).parents[2] / "shared" / "data")


def find_data(given: Path | None) -> Path:
    """fer2013.csv: what was given, or in the folder.

    Raises:
        ConfigError: there is none.
    """
    path = given or real_folder() / "fer2013.csv"
    if not path.exists() or not path.with_name("fer2013new.csv").exists():
        raise ConfigError(f"{path} is not there, or fer2013new.csv beside it: give --data, or put both into $EMOFL_DATA.")
    return path.resolve()
