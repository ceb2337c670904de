import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from common import console
from fl_server.cli import main
from fl_server.hub import Registry
from models.class_counts import FER2013, as_metrics
from models.manifest import PrivacyStatement
from tests.publishing import KEY, OTHER_KEY, facts_of_round, onnx_of_round, publish, weights_of_round


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("three") / "registry"
    publish(folder, 1)
    facts = facts_of_round(2, privacy=PrivacyStatement.absent("local training"), init="[bold]random[/]")
    Registry(folder, KEY).publish(weights_of_round(2), onnx_of_round(2), facts)
    publish(folder, 3)
    return folder


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    for number in (1, 2, 3):
        publish(tmp_path, number)
    (tmp_path / "versions" / "000002-r0002" / "model.safetensors").write_bytes(b"altered")
    return tmp_path


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    for stream in (console.out, console.err):
        monkeypatch.setattr(stream, "_width", 200)


def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[object, str, str]:
    """Exit code, stdout and stderr of `fl-server` with these arguments, white space in runs of one."""
    monkeypatch.setattr(sys, "argv", ["fl-server", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        main()
    out, err = capsys.readouterr()
    return end.value.code or 0, re.sub(r"[ ]+", " ", out), re.sub(r"[ ]+", " ", err)


def test_list_shows_every_version_with_its_privacy(
    three: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(monkeypatch, capsys, "models", "list", three)
    lines = [line.strip() for line in out.splitlines()]
    assert code == 0
    assert lines[1] == "000001-r0001 2026-01-31 12:01 18/20 ε 7.90 per face 50.0% demo"
    assert lines[2] == "000002-r0002 2026-01-31 12:02 18/20 NOT PRIVATE 50.0% demo"
    assert lines[3].startswith("000003-r0003 latest")
    assert KEY.public.fingerprint in lines[4].replace(" ", "")


def test_prune_says_what_went_and_what_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(1, 5):
        publish(tmp_path, number)
    code, out, _ = run(monkeypatch, capsys, "models", "prune", tmp_path, "--keep", 2)
    assert (code, "2 versions removed" in out, "000003-r0003 to 000004-r0004 stay" in out) == (0, True, True)
    _, out, _ = run(monkeypatch, capsys, "models", "prune", tmp_path, "--keep", 1, "--json")
    assert json.loads(out)["removed"] == ["000003-r0003"]
    assert json.loads(out)["left"] == ["000004-r0004"]
    assert json.loads(out)["bytes"] > 1000
    code, _, err = run(monkeypatch, capsys, "models", "prune", tmp_path, "--keep", 0)
    assert (code, "keep must be 1 or more, not 0" in err) == (2, True)
    assert run(monkeypatch, capsys, "models", "prune", tmp_path)[0] == 2
    assert run(monkeypatch, capsys, "models", "verify", tmp_path)[0] == 0


def test_list_as_json_is_for_programs(three: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(monkeypatch, capsys, "models", "list", three, "--json")
    versions = json.loads(out)
    assert [(entry["version"], entry["latest"]) for entry in versions] == [
        ("000001-r0001", False),
        ("000002-r0002", False),
        ("000003-r0003", True),
    ]
    assert versions[1]["manifest"]["privacy"]["private"] is False
    assert versions[2]["manifest"]["previous"] == versions[1]["manifest_sha256"]


def test_list_shows_a_refused_version_and_fails(
    broken: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (broken / "versions" / "000001-r0001" / "manifest.sig").write_bytes(bytes(64))
    code, out, err = run(monkeypatch, capsys, "models", "list", broken)
    assert code == 5
    assert "000001-r0001 refused" in out
    assert "000003-r0003 latest" in out
    assert "000001-r0001 is refused: The signature does not hold" in err


@pytest.mark.parametrize(("wish", "name"), [((), "000003-r0003"), (("1",), "000001-r0001"), (("000001-r0001",), "000001-r0001")])
def test_show_takes_a_name_a_number_or_the_latest(
    wish: tuple[str, ...], name: str, three: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(monkeypatch, capsys, "models", "show", three, *wish)
    assert code == 0
    assert f"Version {name}" in out
    assert "Differentially private for one face on a device: epsilon is at most 7.90" in out
    _, out, _ = run(monkeypatch, capsys, "models", "show", three, *wish, "--json")
    assert json.loads(out)["version"] == name


def test_show_says_unmistakably_that_a_model_is_not_private_and_prints_text_as_it_is(
    three: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, out, _ = run(monkeypatch, capsys, "models", "show", three, "2")
    assert "Privacy NOT PRIVATE: trained without differential privacy" in out
    assert "Not private local training" in out
    assert "from [bold]random[/]" in out


def test_show_has_the_faces_of_all_classes_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    facts = facts_of_round(1, metrics={"accuracy": 0.5} | as_metrics(FER2013 | {"disgust": 1434.6}))
    Registry(tmp_path, KEY).publish(weights_of_round(1), onnx_of_round(1), facts)
    _, out, _ = run(monkeypatch, capsys, "models", "show", tmp_path)
    assert "Faces by class anger 3,958, disgust 1,435, fear 4,070, happiness 7,185" in out
    assert "faces/" not in out
    assert "Metrics accuracy 0.5" in out


def test_show_refuses_an_altered_or_unknown_version(
    broken: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(monkeypatch, capsys, "models", "show", broken, "2")
    assert (code, out) == (5, "")
    assert "000002-r0002 is refused: model.safetensors was altered" in err
    code, _, err = run(monkeypatch, capsys, "models", "show", broken, "../000001-r0001")
    assert code == 2
    assert "it has 000001-r0001 to 000003-r0003" in err


def test_verify_checks_every_version_and_asks_to_compare_the_fingerprint(
    three: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(monkeypatch, capsys, "models", "verify", three)
    assert code == 0
    assert out.count("✓") == 3
    assert "3 versions hold" in out
    assert "compare the fingerprint" in err
    monkeypatch.setenv("HOME", str(three))
    for trust in (KEY.public.fingerprint, three / "publisher.pub", "~/publisher.pub"):
        code, _, err = run(monkeypatch, capsys, "models", "verify", three, "--publisher", trust)
        assert (code, err) == (0, "")


def test_verify_names_the_first_bad_version(
    broken: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (broken / "versions" / "000003-r0003" / "manifest.sig").write_bytes(bytes(64))
    code, out, err = run(monkeypatch, capsys, "models", "verify", broken)
    assert code == 5
    assert out.count("✓") == 1
    assert "000002-r0002 is refused: model.safetensors was altered" in err
    assert "000003" not in err


def test_verify_as_json_is_for_programs_and_says_nothing_where_something_is_wrong(
    three: Path, broken: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(monkeypatch, capsys, "models", "verify", three, "--json")
    found = json.loads(out)
    assert (code, found["holds"], found["latest"], found["publisher"]) == (0, True, "000003-r0003", KEY.public.fingerprint)
    assert [version["version"] for version in found["versions"]] == ["000001-r0001", "000002-r0002", "000003-r0003"]
    code, out, err = run(monkeypatch, capsys, "models", "verify", broken, "--json")
    assert (code, out) == (5, "")
    assert "000002-r0002 is refused" in err


def test_verify_refuses_another_publisher(
    three: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "other.pub").write_bytes(OTHER_KEY.public.pem())
    for trust, code in ((OTHER_KEY.public.fingerprint, 5), (tmp_path / "other.pub", 5), ("hello", 2)):
        found, out, err = run(monkeypatch, capsys, "models", "verify", three, "--publisher", trust)
        assert (found, out) == (code, "")
        assert err.startswith("error: ")
        assert err.count("\n") == 1


@pytest.mark.parametrize("command", ["list", "show", "verify"])
def test_a_folder_without_a_registry_is_one_sentence(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in (tmp_path, tmp_path / "absent"):
        code, out, err = run(monkeypatch, capsys, "models", command, folder)
        assert (code, out) == (5, "")
        assert err.startswith("error: Nothing is published in")


def test_the_command_line_starts_without_torch(three: Path) -> None:
    program = "import sys; from fl_server.model_commands import models; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
