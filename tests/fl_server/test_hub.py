import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from common.errors import ConfigError, IntegrityError, ModelError, RunError
from common.identity import PublicKey
from fl_server.hub import Registry, check_registry, prune
from models.published import open_published, version_names
from tests.publishing import KEY, OTHER_KEY, facts_of_round, onnx_of_round, publish, weights_of_round

ROOT = Path(__file__).resolve().parents[2]
VERSION_FILES = ["manifest.json", "manifest.sig", "model.onnx", "model.safetensors"]


def helper(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "tests.crash_publishing", *map(str, arguments)]


def names_of(registry: Path) -> list[str]:
    return [model.manifest.version for model in check_registry(registry, KEY.public)]


def test_a_published_model_can_be_opened_by_whoever_trusts_the_key(tmp_path: Path) -> None:
    version = publish(tmp_path / "registry", 7)
    assert version.name == version.folder.name == "000001-r0007"
    model = open_published(tmp_path / "registry", KEY.public)
    assert model.manifest == version.manifest
    assert model.manifest_sha256 == version.manifest_sha256
    assert model.onnx_bytes() == onnx_of_round(7)
    np.testing.assert_array_equal(model.weights()["conv.weight"], weights_of_round(7)["conv.weight"])


def test_the_folder_holds_what_the_documentation_says_and_all_may_read_it(tmp_path: Path) -> None:
    registry = tmp_path / "deep" / "registry"
    old = os.umask(0o077)
    try:
        publish(registry, 1)
    finally:
        os.umask(old)
    assert sorted(os.listdir(registry)) == [".lock", "LATEST", "publisher.pub", "versions"]
    assert os.listdir(registry / "versions") == ["000001-r0001"]
    assert sorted(os.listdir(registry / "versions" / "000001-r0001")) == VERSION_FILES
    assert (registry / "LATEST").read_bytes() == b"000001-r0001\n"
    assert PublicKey.read(registry / "publisher.pub") == KEY.public
    for path in (registry / "LATEST", registry / "publisher.pub", *(registry / "versions" / "000001-r0001").iterdir()):
        assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert stat.S_IMODE((registry / "versions" / "000001-r0001").stat().st_mode) == 0o755


def test_the_chain_goes_on_after_a_restart(tmp_path: Path) -> None:
    versions = [publish(tmp_path, number) for number in (1, 2, 2, 1)]
    assert [version.name for version in versions] == ["000001-r0001", "000002-r0002", "000003-r0002", "000004-r0001"]
    assert versions[0].manifest.previous is None
    for before, after in pairwise(versions):
        assert after.manifest.previous == before.manifest_sha256
    assert names_of(tmp_path) == [version.name for version in versions]


def test_the_publishers_key_is_written_once(tmp_path: Path) -> None:
    publish(tmp_path, 1)
    before = (tmp_path / "publisher.pub").stat()
    publish(tmp_path, 2)
    after = (tmp_path / "publisher.pub").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_a_registry_belongs_to_one_key(tmp_path: Path) -> None:
    publish(tmp_path, 1)
    with pytest.raises(IntegrityError, match="belongs to the key"):
        publish(tmp_path, 2, key=OTHER_KEY)
    assert names_of(tmp_path) == ["000001-r0001"]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_not_published(tmp_path: Path, bad: float) -> None:
    weights = weights_of_round(1)
    weights["conv.weight"][1, 0, 2, 1] = bad
    with pytest.raises(ModelError, match=r"conv\.weight has values that are NaN or infinite"):
        Registry(tmp_path, KEY).publish(weights, b"onnx", facts_of_round(1))
    assert not (tmp_path / "LATEST").exists()


def test_weights_of_another_kind_are_not_published(tmp_path: Path) -> None:
    weights = {"w": np.zeros(3, np.float64)}
    with pytest.raises(ModelError, match="w is float64"):
        Registry(tmp_path, KEY).publish(weights, b"onnx", facts_of_round(1))  # type: ignore[arg-type]


def test_weights_in_any_memory_order_are_stored_right(tmp_path: Path) -> None:
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    weights = {"t": array.T, "s": array[:, ::2], "scalar": np.array(5, np.float32)}
    Registry(tmp_path, KEY).publish(weights, b"onnx", facts_of_round(1))
    stored = open_published(tmp_path, KEY.public).weights()
    for name, expected in weights.items():
        assert stored[name].shape == expected.shape
        np.testing.assert_array_equal(stored[name], expected)


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(RunError, match="cannot be written: Not a directory"):
        publish(tmp_path / "file" / "registry", 1)


# Retention


def test_only_the_newest_versions_are_kept_and_the_chain_still_holds(tmp_path: Path) -> None:
    for number in range(1, 6):
        publish(tmp_path, number, keep=2)
    assert names_of(tmp_path) == ["000004-r0004", "000005-r0005"]
    assert sorted(os.listdir(tmp_path / "versions")) == ["000004-r0004", "000005-r0005"]
    publish(tmp_path, 6, keep=1)
    assert names_of(tmp_path) == ["000006-r0006"]
    publish(tmp_path, 7)
    assert names_of(tmp_path) == ["000006-r0006", "000007-r0007"]


@pytest.mark.parametrize("keep", [0, -1])
def test_the_latest_version_cannot_be_given_away(tmp_path: Path, keep: int) -> None:
    with pytest.raises(ConfigError, match="at least its latest version"):
        Registry(tmp_path, KEY, keep=keep)


def test_old_versions_are_removed_by_hand_and_the_next_follows_the_newest(tmp_path: Path) -> None:
    versions = [publish(tmp_path, number) for number in range(1, 6)]
    sizes = {v.name: sum(path.stat().st_size for path in v.folder.iterdir()) for v in versions}
    assert prune(tmp_path, 2, KEY.public) == {name: sizes[name] for name in ("000001-r0001", "000002-r0002", "000003-r0003")}
    assert prune(tmp_path, 2, KEY.public) == {}
    publish(tmp_path, 6)
    assert names_of(tmp_path) == ["000004-r0004", "000005-r0005", "000006-r0006"]


def test_pruning_removes_what_a_crash_of_it_left_and_never_the_latest(tmp_path: Path) -> None:
    for number in range(1, 4):
        publish(tmp_path, number)
    os.rename(tmp_path / "versions" / "000001-r0001", tmp_path / "versions" / ".old-000001-r0001")
    (tmp_path / "LATEST").write_text("000002-r0002\n")
    assert prune(tmp_path, 1, KEY.public) == {}
    assert sorted(os.listdir(tmp_path / "versions")) == ["000002-r0002", "000003-r0003"]
    (tmp_path / "versions" / "000002-r0002" / "model.onnx").write_bytes(b"altered")
    with pytest.raises(IntegrityError, match=r"Nothing is removed: .*model.onnx was altered"):
        prune(tmp_path, 1, KEY.public)
    shutil.rmtree(tmp_path / "versions" / "000002-r0002")
    with pytest.raises(IntegrityError, match=r"Nothing is removed: .*missing"):
        prune(tmp_path, 1, KEY.public)
    assert sorted(os.listdir(tmp_path / "versions")) == ["000003-r0003"]
    with pytest.raises(IntegrityError, match="Nothing is published"):
        prune(tmp_path / "versions", 1, KEY.public)
    assert not (tmp_path / "versions" / ".lock").exists()
    with pytest.raises(ConfigError, match="at least its latest version"):
        prune(tmp_path, 0, KEY.public)


def test_a_link_or_a_file_in_the_place_of_an_old_version_goes_and_what_it_names_stays(tmp_path: Path) -> None:
    elsewhere, versions = tmp_path / "elsewhere", tmp_path / "registry" / "versions"
    elsewhere.mkdir()
    for number in range(1, 4):
        publish(tmp_path / "registry", number)
    (versions / "000001-r0001").rename(elsewhere / "moved")
    (versions / "000001-r0001").symlink_to(elsewhere / "moved")
    (versions / "000000-r0000").write_text("a file")
    (versions / ".old-000000-r0000").symlink_to(elsewhere)
    assert list(prune(tmp_path / "registry", 1, KEY.public)) == ["000000-r0000", "000001-r0001", "000002-r0002"]
    assert os.listdir(versions) == ["000003-r0003"]
    assert sorted(os.listdir(elsewhere / "moved")) == VERSION_FILES
    (versions / "000000-r0000").write_text("a file")
    publish(tmp_path / "registry", 4, keep=1)
    assert os.listdir(versions) == ["000004-r0004"]


def test_a_model_is_published_also_where_old_ones_cannot_be_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    publish(tmp_path, 1)

    def refused(path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(shutil, "rmtree", refused)
    assert publish(tmp_path, 2, keep=1).name == "000002-r0002"
    assert "Old models stay" in caplog.text
    assert open_published(tmp_path, KEY.public).manifest.round == 2


def test_versions_that_are_removed_while_all_are_checked_are_no_fault(tmp_path: Path) -> None:
    for number in range(1, 6):
        publish(tmp_path, number)
    found = check_registry(tmp_path, KEY.public)
    names = [next(found).manifest.version]
    prune(tmp_path, 2, KEY.public)
    names += [model.manifest.version for model in found]
    assert names == ["000001-r0001", "000004-r0004", "000005-r0005"]


def test_a_check_goes_on_with_the_newer_ones_where_all_that_it_knew_went(tmp_path: Path) -> None:
    for number in range(1, 4):
        publish(tmp_path, number)
    found = check_registry(tmp_path, KEY.public)
    next(found)
    for number in (4, 5):
        publish(tmp_path, number, keep=2)
    assert [model.manifest.version for model in found] == ["000004-r0004", "000005-r0005"]


@pytest.mark.parametrize("gone", ["000002-r0002", "000003-r0003"])
def test_a_version_that_goes_from_between_others_is_a_fault_also_during_a_check(tmp_path: Path, gone: str) -> None:
    for number in range(1, 4):
        publish(tmp_path, number)
    found = check_registry(tmp_path, KEY.public)
    next(found)
    shutil.rmtree(tmp_path / "versions" / gone)
    with pytest.raises(IntegrityError, match="missing"):
        list(found)


# Crashes


@pytest.mark.parametrize(("versions", "keep"), [(1, 1), pytest.param(0, 0, marks=pytest.mark.slow)])
def test_killed_at_any_step_the_registry_stays_whole_and_the_next_publication_cleans_up(
    tmp_path: Path, versions: int, keep: int
) -> None:
    process = subprocess.run(
        helper("crash", tmp_path, versions, keep), cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )
    assert process.returncode == 0, process.stderr
    steps = [json.loads(line) for line in process.stdout.splitlines()]
    assert len(steps) > 30
    assert [step["code"] for step in steps] == [9] * (len(steps) - 1) + [0]
    assert [step for step in steps if step["error"] or step["leftovers"]] == []
    latest = [step["latest"] for step in steps]
    assert set(latest) == {0, 1}
    assert latest == sorted(latest)
    assert {step["gained"] for step in steps} == {1, 2}
    if keep:
        assert {step["kept"] for step in steps} == {keep}


def test_what_a_crash_left_unnamed_is_named_even_when_the_next_publication_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (1, 2):
        publish(tmp_path, number)
    (tmp_path / "LATEST").write_text("000001-r0001\n")

    def full(**_: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "mkdtemp", full)
    with pytest.raises(RunError, match="No space left on device"):
        publish(tmp_path, 3)
    assert (tmp_path / "LATEST").read_text() == "000002-r0002\n"


def test_everything_is_on_the_disk_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(tmp_path, 1)
    events: list[tuple[str, object]] = []
    fsync, rename, replace = os.fsync, os.rename, os.replace

    def recorded_fsync(handle: int) -> None:
        events.append(("fsync", os.fstat(handle).st_ino))
        fsync(handle)

    def recorded_rename(source: Path, target: Path) -> None:
        (rename if Path(target).parent.name == "versions" else replace)(source, target)
        events.append(("named", str(Path(target).relative_to(tmp_path))))

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(os, "rename", recorded_rename)
    monkeypatch.setattr(os, "replace", recorded_rename)
    folder = publish(tmp_path, 2).folder
    named = events.index(("named", "versions/000002-r0002"))
    pointed = events.index(("named", "LATEST"))
    last_file = max(i for i, (what, name) in enumerate(events) if what == "named" and "/.new-" in str(name))
    synced_before = {inode for what, inode in events[:named] if what == "fsync"}
    assert {path.stat().st_ino for path in folder.iterdir()} <= synced_before
    assert ("fsync", folder.stat().st_ino) in events[last_file:named]
    assert ("fsync", (tmp_path / "versions").stat().st_ino) in events[named:pointed]
    assert ("fsync", (tmp_path / "LATEST").stat().st_ino) in events[named:pointed]
    assert ("fsync", tmp_path.stat().st_ino) in events[pointed:]


def test_processes_that_publish_at_once_wait_for_each_other(tmp_path: Path) -> None:
    command, pipe = helper("publish", tmp_path, 8), subprocess.PIPE
    processes = [subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe, text=True) for _ in range(2)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    assert names_of(tmp_path) == [f"{number:06d}-r0001" for number in range(1, 17)]


def test_files_that_are_not_the_registrys_own_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "versions" / ".new-abc").mkdir(parents=True)
    (tmp_path / "versions" / ".new-abc" / "model.onnx").write_bytes(b"half")
    (tmp_path / ".LATEST.xyz").write_bytes(b"half")
    (tmp_path / "versions" / ".DS_Store").write_bytes(b"")
    (tmp_path / "README").write_bytes(b"")
    publish(tmp_path, 1)
    assert sorted(os.listdir(tmp_path)) == [".lock", "LATEST", "README", "publisher.pub", "versions"]
    assert sorted(os.listdir(tmp_path / "versions")) == [".DS_Store", "000001-r0001"]


# Publishing after somebody meddled


def test_nothing_is_published_after_a_version_that_is_not_ours(tmp_path: Path) -> None:
    for number in (1, 2):
        publish(tmp_path, number)
    shutil.copytree(tmp_path / "versions" / "000001-r0001", tmp_path / "versions" / "000009-r0009")
    with pytest.raises(IntegrityError, match="it is a copy of 000001-r0001"):
        publish(tmp_path, 3)
    (tmp_path / "versions" / "000009-r0009" / "manifest.sig").write_bytes(bytes(64))
    with pytest.raises(IntegrityError, match="Nothing can be published after 000009-r0009"):
        publish(tmp_path, 3)
    assert version_names(tmp_path) == ["000001-r0001", "000002-r0002", "000009-r0009"]


def test_nothing_is_published_where_the_latest_version_was_lost(tmp_path: Path) -> None:
    for number in (1, 2):
        publish(tmp_path, number)
    shutil.rmtree(tmp_path / "versions" / "000002-r0002")
    with pytest.raises(IntegrityError, match="lost the version 000002-r0002"):
        publish(tmp_path, 3)
    shutil.rmtree(tmp_path / "versions")
    with pytest.raises(IntegrityError, match="lost the version 000002-r0002"):
        publish(tmp_path, 3)


# Checking


def test_a_gap_in_the_chain_is_found(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        publish(tmp_path, number)
    shutil.rmtree(tmp_path / "versions" / "000002-r0002")
    with pytest.raises(IntegrityError, match="000003-r0003 does not follow 000001-r0001: the chain is broken"):
        names_of(tmp_path)


def test_a_link_of_another_chain_is_found(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        publish(tmp_path / "ours", number)
        publish(tmp_path / "other", number + 1)
    shutil.rmtree(tmp_path / "ours" / "versions" / "000002-r0002")
    shutil.copytree(tmp_path / "other" / "versions" / "000002-r0003", tmp_path / "ours" / "versions" / "000002-r0003")
    with pytest.raises(IntegrityError, match="000002-r0003 does not follow 000001-r0001"):
        names_of(tmp_path / "ours")


def test_an_altered_old_version_is_found_and_named(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        publish(tmp_path, number)
    (tmp_path / "versions" / "000002-r0002" / "model.onnx").write_bytes(onnx_of_round(3))
    models = check_registry(tmp_path, KEY.public)
    assert next(models).manifest.version == "000001-r0001"
    with pytest.raises(IntegrityError, match=r"000002-r0002 is refused: model\.onnx was altered"):
        next(models)


def test_a_latest_that_was_set_back_or_names_nothing_is_found(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        publish(tmp_path, number)
    (tmp_path / "LATEST").write_text("000001-r0001\n")
    with pytest.raises(IntegrityError, match="000003-r0003 is newer: it was rolled back"):
        names_of(tmp_path)
    (tmp_path / "LATEST").write_text("000004-r0004\n")
    with pytest.raises(IntegrityError, match="000004-r0004, which is missing"):
        names_of(tmp_path)
    (tmp_path / "LATEST").write_text("000002-r0002\n")
    assert len(names_of(tmp_path)) == 3


# Without this project


def test_the_documented_program_verifies_a_version_and_refuses_an_altered_one(tmp_path: Path) -> None:
    folder = publish(tmp_path, 1).folder
    program = (ROOT / "docs" / "registry.md").read_text().split("```python\n")[1].split("```")[0]

    def verify() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", program, str(folder), str(tmp_path / "publisher.pub")]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert verify().stdout == f"signed by {KEY.public.fingerprint}\n"
    (folder / "model.onnx").write_bytes(b"altered")
    assert verify().stderr == "model.onnx was altered\n"
    (folder / "manifest.json").write_bytes(b"{}\n")
    assert "InvalidSignature" in verify().stderr
