"""What the loop saw as a table, one row per face: .csv, or .parquet where pyarrow is installed. `recorder.py` opens them.

Columns: frame, seconds, name, model, face, x, y, width, height, label, confidence, and each class's probability. `frame` counts
from 0, `seconds` from the source's start, `face` is the number that a face keeps from frame to frame, the box is in pixels of
the unmirrored frame.
"""

import csv
import os
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from common.errors import DependencyError, DeviceError
from fl_client.webcam.parts import part_of
from fl_client.webcam.seen import Seen

COLUMNS = ("frame", "seconds", "name", "model", "face", "x", "y", "width", "height", "label", "confidence")
ROWS_IN_MEMORY = 2000
"""Rows that a Parquet file gathers before it writes them as one group."""

Row = tuple[int | float | str | None, ...]


def columns_for(classes: Sequence[str]) -> tuple[str, ...]:
    """The names of all columns."""
    return (*COLUMNS, *(f"p_{name}" for name in classes))


def rows_of(seen: Seen, classes: Sequence[str]) -> Iterator[Row]:
    """A row per face, in the order of `columns_for`."""
    frame = seen.frame
    for face in seen.faces:
        shares = dict(face.probabilities)
        place = (frame.index, frame.seconds, frame.name, seen.version, face.track, *face.box)
        yield (*place, face.label, face.confidence, *(shares[name] for name in classes))


class CsvTable:
    """A .csv; an empty field stands for a face without a number."""

    def __init__(self, path: Path, classes: Sequence[str]) -> None:
        self.path = path
        self._classes = tuple(classes)
        self._part = part_of(path)
        self._file = self._part.open("w", newline="", encoding="utf-8")
        self._table = csv.writer(self._file, lineterminator="\n")
        self._table.writerow(columns_for(classes))

    def write(self, seen: Seen) -> None:
        """A line per face.

        Raises:
            DeviceError: the disk does not take it.
        """
        try:
            self._table.writerows(map(self._fields, rows_of(seen, self._classes)))
        except OSError as error:
            raise self._failed(error) from error

    def keep(self) -> bool:
        try:
            self._file.close()
        except OSError as error:
            self.discard()
            raise self._failed(error) from error
        os.replace(self._part, self.path)
        return True

    def discard(self) -> None:
        try:
            self._file.close()
        except OSError:
            pass
        finally:
            self._part.unlink(missing_ok=True)

    def _fields(self, row: Row) -> Iterator[Any]:
        for name, value in zip(columns_for(self._classes), row, strict=True):
            yield value if not isinstance(value, float) else f"{value:.3f}" if name == "seconds" else f"{value:.6f}"

    def _failed(self, error: OSError) -> DeviceError:
        return DeviceError(f"The table {self.path} could not be written: {error.strerror}.")


class ParquetTable:
    """A .parquet, compressed with zstd, for pandas, DuckDB and the like."""

    def __init__(self, path: Path, classes: Sequence[str]) -> None:
        """Begin the file.

        Raises:
            DependencyError: pyarrow is not installed.
            DeviceError: the file cannot be made there.
        """
        self._arrow, parquet = _pyarrow()
        self.path = path
        self._classes = tuple(classes)
        self._rows: list[Row] = []
        self._part = part_of(path)
        self._writer = parquet.ParquetWriter(self._part, self._schema(), compression="zstd")

    def write(self, seen: Seen) -> None:
        """A row per face.

        Raises:
            DeviceError: the disk does not take it.
        """
        self._rows += rows_of(seen, self._classes)
        if len(self._rows) >= ROWS_IN_MEMORY:
            self._flush()

    def keep(self) -> bool:
        try:
            self._flush()
            self._writer.close()
        except (DeviceError, OSError) as error:
            self.discard()
            raise DeviceError(f"The table {self.path} could not be written; is there room on its disk?") from error
        os.replace(self._part, self.path)
        return True

    def discard(self) -> None:
        try:
            self._writer.close()
        except OSError:
            pass
        finally:
            self._part.unlink(missing_ok=True)

    def _flush(self) -> None:
        schema = self._schema()
        columns = zip(*self._rows, strict=True) if self._rows else ([] for _ in schema)
        arrays = [self._arrow.array(list(column), field.type) for column, field in zip(columns, schema, strict=True)]
        try:
            self._writer.write_table(self._arrow.table(arrays, schema=schema))
        except OSError as error:
            raise DeviceError(f"The table {self.path} could not be written: {error.strerror or error}.") from error
        self._rows = []

    def _schema(self) -> Any:
        arrow = self._arrow
        kinds = {"frame": arrow.int64(), "seconds": arrow.float64(), "name": arrow.string(), "model": arrow.string()}
        kinds |= {"label": arrow.string()} | dict.fromkeys(("face", "x", "y", "width", "height"), arrow.int32())
        return arrow.schema([(name, kinds.get(name, arrow.float32())) for name in columns_for(self._classes)])


def check_parquet() -> None:
    """Raises:
    DependencyError: pyarrow is not installed.
    """
    _pyarrow()


def _pyarrow() -> tuple[Any, Any]:
    try:
        return import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError as error:
        raise DependencyError(
            "A .parquet table needs pyarrow, which is not installed. Run: pip install 'emofl[parquet]', or use --csv."
        ) from error
