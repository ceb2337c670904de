import threading
from pathlib import Path

import pytest

from common.errors import ConfigError, IntegrityError
from fl_client.webcam.badge import short_privacy
from fl_client.webcam.registry import RegistrySource, source_of, wait_for_first
from models.manifest import PrivacyStatement
from tests.publishing import KEY, OTHER_KEY

from .conftest import CLASSES, brightness_onnx, publish


def private(epsilon: float, unit: str = "record") -> PrivacyStatement:
    return PrivacyStatement.guaranteed(
        unit=unit,  # type: ignore[arg-type]
        epsilon=epsilon,
        delta=1e-5,
        accountant="rdp",
        clipping_norm=1.0,
        noise_source="the operating system",
    )


def test_a_published_model_arrives_with_all_that_the_screen_shows(registry: Path) -> None:
    model = RegistrySource(registry).newest()
    assert model.version == "run demo round 1 #1"
    assert (model.privacy, model.private) == ("record-level epsilon 7.9", True)
    assert model.classes == CLASSES
    assert model.onnx == brightness_onnx()
    assert model.signer == KEY.public.fingerprint
    assert "epsilon is at most 7.9" in model.promise


def test_a_long_run_name_leaves_room_for_round_and_number(tmp_path: Path) -> None:
    publish(tmp_path / "registry", 12, run="a" * 90)
    version = RegistrySource(tmp_path / "registry").newest().version
    assert version == f"run {'a' * 21}... round 12 #1"


@pytest.mark.parametrize(
    ("epsilon", "said"),
    [(8.0, "8"), (7.934, "7.94"), (7.9999, "8"), (0.0101, "0.02"), (1e-9, "0.01"), (10.0, "10"), (123.4, "123.4")],
)
def test_epsilon_is_never_rounded_down(epsilon: float, said: str) -> None:
    assert short_privacy(private(epsilon)) == f"record-level epsilon {said}"


def test_the_unit_is_named_and_its_absence_is_loud() -> None:
    assert short_privacy(private(3.0, "client")) == "client-level epsilon 3"
    assert short_privacy(PrivacyStatement.absent("All training.")) == "NON-PRIVATE"


def test_news_is_what_was_published_after_the_last_look(registry: Path) -> None:
    source = RegistrySource(registry)
    assert source.newer() is None
    source.newest()
    assert source.newer() is None
    publish(registry, 2)
    publish(registry, 3)
    newer = source.newer()
    assert newer is not None
    assert newer.version == "run demo round 3 #3"
    assert source.newer() is None


def test_one_versions_folder_is_used_and_not_followed(registry: Path) -> None:
    folder = publish(registry, 2).folder
    publish(registry, 3)
    source = source_of(folder, None, None)
    assert source.newest().version == "run demo round 2 #2"
    assert source.newer() is None


def test_whom_to_trust_is_a_fingerprint_or_a_key_file(registry: Path, tmp_path: Path) -> None:
    (tmp_path / "good.pub").write_bytes(KEY.public.pem())
    (tmp_path / "other.pub").write_bytes(OTHER_KEY.public.pem())
    for good in (KEY.public.fingerprint, str(tmp_path / "good.pub")):
        assert source_of(None, registry, good).newest().version == "run demo round 1 #1"
    for bad in (OTHER_KEY.public.fingerprint, str(tmp_path / "other.pub")):
        with pytest.raises(IntegrityError):
            source_of(None, registry, bad).newest()


def test_a_registry_that_went_back_is_refused_at_the_next_start(registry: Path) -> None:
    publish(registry, 2)
    RegistrySource(registry).newest()
    (registry / "LATEST").write_text("000001-r0001\n")
    for trust in (None, KEY.public.fingerprint):
        with pytest.raises(IntegrityError, match="rolled back"):
            source_of(None, registry, trust).newest()


def test_options_that_name_no_model_are_one_sentence(registry: Path, tmp_path: Path) -> None:
    version = registry / "versions" / "000001-r0001"
    for model, folder, sentence in [
        (None, None, "Give one of --registry FOLDER"),
        (version, registry, "Give one of --registry FOLDER"),
        (tmp_path / "nowhere", None, "does not exist"),
        (None, tmp_path / "nowhere", "does not exist"),
        (version / "model.onnx", None, "is one file; a published model is the folder"),
        (None, version, "is one version, not a registry; use --model"),
    ]:
        with pytest.raises(ConfigError, match=sentence):
            source_of(model, folder, None)


def test_waiting_for_the_first_version_ends_when_it_appears(tmp_path: Path) -> None:
    folder = tmp_path / "registry"
    folder.mkdir()
    said: list[str] = []

    def say(sentence: str) -> None:
        said.append(sentence)
        threading.Thread(target=publish, args=(folder, 1)).start()

    wait_for_first(folder, say, pause=0.01)
    assert said == [f"Waiting for the first model in {folder}; Ctrl-C stops."]
    assert RegistrySource(folder).newest().version == "run demo round 1 #1"
    wait_for_first(folder, said.append)
    assert len(said) == 1


def test_a_registry_that_vanishes_ends_the_waiting(tmp_path: Path) -> None:
    folder = tmp_path / "registry"
    folder.mkdir()
    with pytest.raises(IntegrityError, match="was removed while waiting"):
        wait_for_first(folder, lambda sentence: folder.rmdir(), pause=0.01)
