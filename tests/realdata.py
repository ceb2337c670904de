"""The real faces for slow tests, where `benchmarks.real_data` says; a test that needs them skips where there are none."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.real_data import real_folder

EXPORTER = "export_fer2013.py"


def data_folder() -> Path:
    """The folder with ferplus.npz and its exporter; skips the test that asks where there is none."""
    folder = real_folder()
    for name in (EXPORTER, "ferplus.npz"):
        if not (folder / name).is_file():
            pytest.skip(f"The real data is not here: {folder / name} is missing. Set EMOFL_DATA to the folder that holds it.")
    return folder


def export(out: Path, form: str, *options: str) -> Path:
    """Write the real data to `out` in a form that users have: "csv" (300 MB, about a minute) or "folders"."""
    subprocess.run([sys.executable, data_folder() / EXPORTER, out, form, *options], check=True)
    return out
