"""What tells one state of a registry's newest version from another."""

import os
from pathlib import Path

import pytest

from fl_server.hub import Registry
from models.refused import RefusedVersion, state_of_latest
from tests.publishing import KEY, facts_of_round, weights_of_round
from tests.tiny_model import tiny_onnx


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    path = tmp_path / "registry"
    Registry(path, KEY).publish(weights_of_round(1), tiny_onnx(1), facts_of_round(1))
    return path


def test_a_registry_that_does_not_change_keeps_its_state(registry: Path) -> None:
    refused = RefusedVersion(registry)
    state = state_of_latest(registry)
    assert not refused.holds(state)
    refused.note(state)
    assert refused.holds(state_of_latest(registry))


@pytest.mark.parametrize("file", ["manifest.json", "manifest.sig", "model.onnx", "model.safetensors"])
@pytest.mark.parametrize("change", ["written", "removed", "added"])
def test_whatever_changes_in_the_version_changes_its_state(registry: Path, file: str, change: str) -> None:
    before = state_of_latest(registry)
    path = registry / "versions" / "000001-r0001" / file
    path.parent.chmod(0o700)
    path.chmod(0o600)
    if change == "written":
        status = path.stat()
        path.write_bytes(path.read_bytes()[:-1] + b"!")
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    elif change == "removed":
        path.unlink()
    else:
        path.with_suffix(".more").write_bytes(b"")
    assert state_of_latest(registry) != before


def test_another_newest_version_is_another_state(registry: Path) -> None:
    before = state_of_latest(registry)
    Registry(registry, KEY).publish(weights_of_round(2), tiny_onnx(2), facts_of_round(2))
    after = state_of_latest(registry)
    assert after != before


@pytest.mark.parametrize("name", [b"", b"../../etc", b"\xff\xfe", b"a\0b", b"x" * 5000])
def test_whatever_stands_in_latest_is_a_state_and_no_error(registry: Path, name: bytes) -> None:
    before = state_of_latest(registry)
    (registry / "LATEST").unlink()
    (registry / "LATEST").write_bytes(name)
    assert state_of_latest(registry) != before
    assert state_of_latest(registry / "absent") == state_of_latest(registry / "absent")
