import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.canonical import encode
from common.errors import ConfigError, IntegrityError
from common.files import read_plain
from models import published
from models.manifest import CONTEXT
from models.published import newer_than, open_published, version_names
from tests.publishing import KEY, OTHER_KEY, onnx_of_round, publish, weights_of_round

FILES = ["manifest.json", "manifest.sig", "model.onnx", "model.safetensors"]


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("three") / "registry"
    for number in (1, 2, 3):
        publish(folder, number)
    return folder


@pytest.fixture
def registry(three: Path, tmp_path: Path) -> Path:
    """A registry of three versions of one's own."""
    shutil.copytree(three, tmp_path / "registry")
    return tmp_path / "registry"


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


def latest_folder(registry: Path) -> Path:
    return registry / "versions" / "000003-r0003"


def signed_again(registry: Path, change: Callable[[dict], object]) -> None:  # type: ignore[type-arg]
    """Change the latest manifest and sign it with the publisher's own key."""
    folder = latest_folder(registry)
    whole = json.loads((folder / "manifest.json").read_bytes())
    change(whole)
    content = encode(whole)
    (folder / "manifest.json").write_bytes(content)
    (folder / "manifest.sig").write_bytes(KEY.sign(CONTEXT, content))


def test_the_latest_model_comes_back_as_it_was_published(registry: Path, state: Path) -> None:
    model = open_published(registry, state=state)
    assert model.manifest.version == "000003-r0003"
    assert model.onnx_bytes() == onnx_of_round(3)
    assert model.fingerprint == KEY.public.fingerprint
    weights = model.weights()
    assert set(weights) == {"conv.weight", "scale"}
    for name, array in weights_of_round(3).items():
        assert weights[name].shape == array.shape
        np.testing.assert_array_equal(weights[name], array)


def test_a_version_folder_opens_by_itself(registry: Path, state: Path, tmp_path: Path) -> None:
    folder = registry / "versions" / "000001-r0001"
    assert open_published(folder, state=state).manifest.round == 1
    assert newer_than(open_published(folder, state=state)) is None
    alone = tmp_path / "my model"
    shutil.copytree(folder, alone)
    assert open_published(alone, KEY.public).manifest.round == 1
    assert open_published(alone, registry / "publisher.pub").manifest.round == 1
    for trust in (None, KEY.public.fingerprint):
        with pytest.raises(IntegrityError, match="outside a registry"):
            open_published(alone, trust, state)


# What is altered


@pytest.mark.parametrize("name", FILES)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_any_flipped_bit_is_refused(name: str, data: st.DataObject, registry: Path) -> None:
    path = latest_folder(registry) / name
    content = path.read_bytes()
    at = data.draw(st.integers(0, len(content) * 8 - 1))
    changed = bytearray(content)
    changed[at // 8] ^= 1 << at % 8
    path.write_bytes(changed)
    with pytest.raises(IntegrityError, match="is refused"):
        open_published(registry, KEY.public)
    path.write_bytes(content)
    open_published(registry, KEY.public)


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_lengthened_empty_or_missing_file_is_refused(name: str, registry: Path) -> None:
    path = latest_folder(registry) / name
    content = path.read_bytes()
    for wrong in (content[:-1], content[: len(content) // 2], b"", content + b"\0", content + b"x" * 1000):
        path.write_bytes(wrong)
        with pytest.raises(IntegrityError, match="is refused"):
            open_published(registry, KEY.public)
    path.unlink()
    with pytest.raises(IntegrityError, match=name):
        open_published(registry, KEY.public)


@pytest.mark.parametrize("name", FILES)
def test_a_symbolic_link_is_refused_even_to_the_right_content(name: str, registry: Path, tmp_path: Path) -> None:
    path = latest_folder(registry) / name
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(IntegrityError, match="symbolic link"):
        open_published(registry, KEY.public)


def test_a_pipe_in_the_place_of_a_file_does_not_block(registry: Path) -> None:
    (latest_folder(registry) / "model.onnx").unlink()
    os.mkfifo(latest_folder(registry) / "model.onnx")
    with pytest.raises(IntegrityError, match="not a plain file"):
        open_published(registry, KEY.public)


def test_a_version_folder_that_is_a_link_is_refused(registry: Path, tmp_path: Path) -> None:
    latest_folder(registry).rename(tmp_path / "elsewhere")
    latest_folder(registry).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(IntegrityError, match="not a folder"):
        open_published(registry, KEY.public)


@pytest.mark.parametrize("name", ["model.pkl", ".hidden", "manifest.json~"])
def test_a_file_that_nobody_signed_is_refused(name: str, registry: Path) -> None:
    (latest_folder(registry) / name).write_bytes(b"x")
    with pytest.raises(IntegrityError, match="not covered by the signature"):
        open_published(registry, KEY.public)


def test_a_half_written_version_is_refused(registry: Path) -> None:
    half = registry / "versions" / "000004-r0004"
    half.mkdir()
    (half / "model.onnx").write_bytes(onnx_of_round(4))
    assert open_published(registry, KEY.public).manifest.round == 3
    (registry / "LATEST").write_text("000004-r0004\n")
    with pytest.raises(IntegrityError, match="000004-r0004 is refused"):
        open_published(registry, KEY.public)


# What is exchanged


@pytest.mark.parametrize("names", [["manifest.sig"], ["manifest.json"], ["model.onnx"], ["manifest.json", "manifest.sig"]])
def test_parts_of_another_version_are_refused(names: list[str], registry: Path) -> None:
    for name in names:
        shutil.copy(registry / "versions" / "000002-r0002" / name, latest_folder(registry) / name)
    with pytest.raises(IntegrityError, match="is refused"):
        open_published(registry, KEY.public)


def test_a_whole_version_under_the_name_of_another_is_refused(registry: Path) -> None:
    shutil.rmtree(latest_folder(registry))
    shutil.copytree(registry / "versions" / "000001-r0001", latest_folder(registry))
    with pytest.raises(IntegrityError, match="holds the manifest of 000001-r0001"):
        open_published(registry, KEY.public)


def test_a_version_signed_by_another_key_is_refused(registry: Path, tmp_path: Path) -> None:
    for number in (1, 2, 3):
        publish(tmp_path / "evil", number, key=OTHER_KEY)
    shutil.rmtree(registry / "versions")
    shutil.copytree(tmp_path / "evil" / "versions", registry / "versions")
    for trust in (KEY.public, KEY.public.fingerprint, registry / "publisher.pub"):
        with pytest.raises(IntegrityError, match="signature does not hold"):
            open_published(registry, trust)
    shutil.copy(tmp_path / "evil" / "publisher.pub", registry / "publisher.pub")
    with pytest.raises(IntegrityError, match="signature does not hold"):
        open_published(registry, KEY.public)
    with pytest.raises(IntegrityError, match="not to the one you trust"):
        open_published(registry, KEY.public.fingerprint)


def test_a_signature_for_another_purpose_is_refused(registry: Path) -> None:
    content = (latest_folder(registry) / "manifest.json").read_bytes()
    for wrong in (KEY.sign("emofl-manifest-v2", content), KEY.private.sign(content)):
        (latest_folder(registry) / "manifest.sig").write_bytes(wrong)
        with pytest.raises(IntegrityError, match="signature does not hold"):
            open_published(registry, KEY.public)


def test_even_the_publisher_cannot_sign_what_the_format_forbids(registry: Path) -> None:
    def unknown_key(whole: dict[str, object]) -> None:
        whole["extra"] = 1

    def path_in_a_name(whole: dict[str, dict[str, object]]) -> None:
        whole["files"]["../../etc/passwd"] = whole["files"].pop("model.onnx")

    for change in (unknown_key, path_in_a_name):
        signed_again(registry, change)
        with pytest.raises(IntegrityError, match="The manifest cannot be used"):
            open_published(registry, KEY.public)


def test_a_signed_manifest_that_is_not_canonical_is_refused(registry: Path) -> None:
    folder = latest_folder(registry)
    content = json.dumps(json.loads((folder / "manifest.json").read_bytes()), indent=1).encode()
    (folder / "manifest.json").write_bytes(content)
    (folder / "manifest.sig").write_bytes(KEY.sign(CONTEXT, content))
    with pytest.raises(IntegrityError, match="canonical"):
        open_published(registry, KEY.public)


def test_signed_weights_of_another_format_are_refused_when_asked_for(registry: Path) -> None:
    content = b"\x80\x04K\x01."
    (latest_folder(registry) / "model.safetensors").write_bytes(content)
    entry = {"sha256": "", "bytes": len(content)}
    entry["sha256"] = published.sha256(content)
    signed_again(registry, lambda whole: whole["files"].update({"model.safetensors": entry}))
    model = open_published(registry, KEY.public)
    with pytest.raises(IntegrityError, match="not a safetensors file"):
        model.weights()


def test_nothing_is_parsed_before_everything_is_verified(registry: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("parsed")

    monkeypatch.setattr(published, "parse_manifest", never)
    monkeypatch.setattr(published, "load_safetensors", never)
    (latest_folder(registry) / "manifest.sig").write_bytes(bytes(64))
    with pytest.raises(IntegrityError, match="signature does not hold"):
        open_published(registry, KEY.public)


def test_what_is_returned_is_what_was_hashed(registry: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[str] = []

    def read_then_alter(path: Path, limit: int) -> bytes:
        content = read_plain(path, limit)
        reads.append(path.name)
        if path.name in FILES:
            path.write_bytes(b"altered after it was read")
        return content

    monkeypatch.setattr(published, "read_plain", read_then_alter)
    model = open_published(registry, KEY.public)
    assert model.onnx_bytes() == onnx_of_round(3)
    np.testing.assert_array_equal(model.weights()["scale"], 3)
    assert sorted(name for name in reads if name in FILES) == FILES


# Where LATEST points


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"../../elsewhere\n",
        b"/tmp\n",
        b"000003-r0003\n\n",
        b"000003-r0003\0\n",
        b" 000003-r0003\n",
        b".new-x\n",
        "٠٠٠٠٠٣-r٠٠٠٣\n".encode(),
        b"\xff\n",
        b"0" * 100,
    ],
)
def test_latest_names_a_version_and_nothing_else(content: bytes, registry: Path) -> None:
    (registry / "LATEST").write_bytes(content)
    with pytest.raises(IntegrityError, match="LATEST"):
        open_published(registry, KEY.public)


def test_an_empty_or_absent_folder_has_nothing_published(tmp_path: Path, state: Path) -> None:
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(IntegrityError, match="Nothing is published"):
            open_published(folder, state=state)


def test_versions_are_ordered_by_number(tmp_path: Path) -> None:
    for name in ("1000000-r0001", "999999-r0002", "000010-r10000", ".new-x", "notes"):
        (tmp_path / "versions" / name).mkdir(parents=True)
    assert version_names(tmp_path) == ["000010-r10000", "999999-r0002", "1000000-r0001"]


# Whom to trust


def test_the_first_key_of_a_registry_is_kept_and_another_one_refused(registry: Path, state: Path, tmp_path: Path) -> None:
    open_published(registry, state=state)
    pins = state / "known_publishers.json"
    assert pins.stat().st_mode & 0o777 == 0o600
    assert json.loads(pins.read_bytes())["registries"][str(registry)]["fingerprint"] == KEY.public.fingerprint
    shutil.rmtree(registry)
    for number in (1, 2, 3, 4):
        publish(registry, number, key=OTHER_KEY)
    with pytest.raises(IntegrityError, match=r"signed by another key.*delete this registry's entry from .*known_publishers"):
        open_published(registry, state=state)
    assert open_published(registry, OTHER_KEY.public).manifest.round == 4
    with pytest.raises(IntegrityError, match="signed by another key"):
        open_published(registry / "versions" / "000001-r0001", state=state)
    pins.unlink()
    assert open_published(registry, state=state).fingerprint == OTHER_KEY.public.fingerprint


def test_naming_a_key_explicitly_replaces_the_one_met_before(registry: Path, state: Path) -> None:
    open_published(registry, state=state)
    shutil.rmtree(registry)
    publish(registry, 1, key=OTHER_KEY)
    assert open_published(registry, OTHER_KEY.public, state=state).manifest.sequence == 1
    assert open_published(registry, state=state).fingerprint == OTHER_KEY.public.fingerprint


def test_an_exchanged_key_file_is_noticed_before_anything_else_is_read(registry: Path, state: Path) -> None:
    open_published(registry, state=state)
    (registry / "publisher.pub").write_bytes(OTHER_KEY.public.pem())
    with pytest.raises(IntegrityError, match="signed by another key"):
        open_published(registry, state=state)


def test_a_key_is_not_kept_when_what_it_signed_is_refused(registry: Path, state: Path) -> None:
    (latest_folder(registry) / "model.onnx").write_bytes(b"altered")
    with pytest.raises(IntegrityError):
        open_published(registry, state=state)
    assert not (state / "known_publishers.json").exists()


def test_each_registry_has_a_publisher_of_its_own(registry: Path, state: Path, tmp_path: Path) -> None:
    publish(tmp_path / "other", 1, key=OTHER_KEY)
    open_published(registry, state=state)
    open_published(tmp_path / "other", state=state)
    open_published(registry, state=state)
    assert len(json.loads((state / "known_publishers.json").read_bytes())["registries"]) == 2


def test_trust_can_be_a_key_a_fingerprint_or_a_file_and_needs_no_memory(
    registry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "never"))
    for trust in (KEY.public, KEY.public.fingerprint.upper(), registry / "publisher.pub"):
        assert open_published(registry, trust).manifest.round == 3
    for wrong in (OTHER_KEY.public, OTHER_KEY.public.fingerprint):
        with pytest.raises(IntegrityError):
            open_published(registry, wrong)
    with pytest.raises(ConfigError):
        open_published(registry, "not a fingerprint")
    assert not (tmp_path / "never").exists()


def test_a_damaged_memory_is_refused_and_not_replaced(registry: Path, state: Path) -> None:
    state.mkdir()
    for content in (b"{", b'{"registries":{"x":{}}}', b"[]"):
        (state / "known_publishers.json").write_bytes(content)
        with pytest.raises(IntegrityError, match="is damaged"):
            open_published(registry, state=state)
        assert (state / "known_publishers.json").read_bytes() == content


def test_a_registry_without_its_key_file_needs_one(registry: Path, state: Path) -> None:
    (registry / "publisher.pub").rename(registry.parent / "key.pub")
    with pytest.raises(IntegrityError, match=r"no publisher\.pub"):
        open_published(registry, state=state)
    assert open_published(registry, registry.parent / "key.pub").manifest.round == 3


# Going back


def test_a_registry_that_went_back_is_refused_after_a_restart(registry: Path, state: Path) -> None:
    open_published(registry, state=state)
    (registry / "LATEST").write_text("000002-r0002\n")
    with pytest.raises(IntegrityError, match=r"rolled back: its latest version is number 2, and number 3"):
        open_published(registry, state=state)
    with pytest.raises(IntegrityError, match="rolled back"):
        open_published(registry, KEY.public, state)
    assert open_published(registry / "versions" / "000002-r0002", state=state).manifest.round == 2
    with pytest.raises(IntegrityError, match="rolled back"):
        open_published(registry, state=state)


def test_two_different_versions_of_one_number_are_refused(registry: Path, state: Path, tmp_path: Path) -> None:
    open_published(registry, state=state)
    shutil.rmtree(registry)
    for number in (1, 2, 3):
        publish(registry, number + 1)
    with pytest.raises(IntegrityError, match="two different versions with the number 3"):
        open_published(registry, state=state)


def test_newer_than_finds_what_was_published_since(registry: Path, state: Path) -> None:
    current = open_published(registry, state=state)
    assert newer_than(current) is None
    publish(registry, 4)
    newer = newer_than(current)
    assert newer is not None
    assert newer.manifest.version == "000004-r0004"
    assert newer_than(newer) is None
    (registry / "LATEST").write_text("000003-r0003\n")
    with pytest.raises(IntegrityError, match="rolled back"):
        newer_than(newer)
    with pytest.raises(IntegrityError, match="rolled back"):
        open_published(registry, state=state)


def test_newer_than_reads_one_short_file_when_nothing_is_new(registry: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    current = open_published(registry, KEY.public)
    reads: list[str] = []
    monkeypatch.setattr(published, "read_plain", lambda path, limit: (reads.append(path.name), read_plain(path, limit))[1])
    assert newer_than(current) is None
    assert reads == ["LATEST"]


def test_newer_than_refuses_older_altered_and_foreign_versions(registry: Path, tmp_path: Path) -> None:
    current = open_published(registry, KEY.public)
    (registry / "LATEST").write_text("000001-r0001\n")
    with pytest.raises(IntegrityError, match="rolled back"):
        newer_than(current)
    (registry / "LATEST").write_text("000003-r0003\n")
    publish(registry, 4)
    path = registry / "versions" / "000004-r0004" / "model.onnx"
    path.write_bytes(path.read_bytes()[::-1])
    with pytest.raises(IntegrityError, match=r"model\.onnx was altered"):
        newer_than(current)
    for number in (1, 2, 3, 4):
        publish(tmp_path / "evil", number, key=OTHER_KEY)
    shutil.rmtree(registry)
    shutil.copytree(tmp_path / "evil", registry)
    with pytest.raises(IntegrityError, match="signature does not hold"):
        newer_than(current)


def test_a_second_version_of_the_same_number_is_not_newer(registry: Path, tmp_path: Path) -> None:
    current = open_published(registry, KEY.public)
    for number in (1, 2, 5):
        publish(tmp_path / "fork", number)
    shutil.rmtree(registry)
    shutil.copytree(tmp_path / "fork", registry)
    with pytest.raises(IntegrityError, match="rolled back"):
        newer_than(current)


def test_a_version_removed_while_it_is_read_is_followed_to_the_next(registry: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read_registered = published.read_registered

    def publish_and_remove_first(*arguments: object) -> published.PublishedModel:
        monkeypatch.setattr(published, "read_registered", read_registered)
        publish(registry, 4, keep=1)
        return read_registered(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(published, "read_registered", publish_and_remove_first)
    assert open_published(registry, KEY.public).manifest.round == 4
