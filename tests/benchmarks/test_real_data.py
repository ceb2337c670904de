from pathlib import Path

import pytest

from benchmarks import real_data
from common.errors import ConfigError


def test_the_real_faces_are_found_where_they_are_named_and_else_beside_the_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EMOFL_DATA", raising=False)
    monkeypatch.setattr(real_data, "__file__", str(tmp_path / "repository" / "benchmarks" / "real_data.py"))
    folder = tmp_path / "shared" / "data"
    folder.mkdir(parents=True)
    for name in ("fer2013.csv", "fer2013new.csv"):
        with pytest.raises(ConfigError, match="--data"):
            real_data.find_data(None)
        (folder / name).touch()
    assert real_data.find_data(None) == real_data.find_data(folder / "fer2013.csv") == folder / "fer2013.csv"
    monkeypatch.setenv("EMOFL_DATA", str(tmp_path))
    with pytest.raises(ConfigError, match=str(tmp_path / "fer2013.csv")):
        real_data.find_data(None)
