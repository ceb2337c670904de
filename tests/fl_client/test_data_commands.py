import json
import sys

import numpy as np
import pytest
from PIL import Image

from common.console import command_line, run_command_line
from common.emotions import EMOTIONS_8
from common.errors import ConfigError, DataError, DeviceError
from fl_client.data_commands import data


@pytest.fixture
def fl_client(monkeypatch, capsys):
    """Run the command line with these words: (exit code, stdout, stderr)."""
    app = command_line("test")
    app.add_typer(data, name="data")

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["fl-client", *map(str, words)])
        monkeypatch.setenv("COLUMNS", "200")
        with pytest.raises(SystemExit) as stop:
            run_command_line(app)
        return stop.value.code, *capsys.readouterr()

    return run


def save(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (48, 48), dtype=np.uint8)).save(path)


def test_check_counts_the_faces_and_names_what_is_left_out(tmp_path, fl_client):
    for seed, name in enumerate(["happy/a.png", "happy/b.png", "anger/c.png", "confused/d.png"]):
        save(tmp_path / name, seed)
    (tmp_path / "anger" / "e.png").write_text("broken")
    code, out, err = fl_client("data", "check", tmp_path)
    assert code == 0
    assert err == ""
    assert "3 usable faces" in out
    assert "66.7%" in out
    assert "anger/e.png" in out
    assert "confused/: 1 file" in out
    assert "No face yet of: neutral, surprise, sadness, disgust, fear, contempt." in out


def test_check_without_a_usable_face_shows_the_report_and_fails_as_unusable_data(tmp_path, fl_client):
    (tmp_path / "anger").mkdir()
    for i in range(9):
        (tmp_path / "anger" / f"{i}.png").write_text(f"broken {i}")
    code, out, err = fl_client("data", "check", tmp_path)
    assert code == DataError.exit_code
    assert "anger/8.png" in out
    assert err.startswith("error: There is no face to use")
    assert err.count("\n") == 1


def test_check_of_a_missing_folder_is_one_sentence(tmp_path, fl_client):
    code, out, err = fl_client("data", "check", tmp_path / "nothing")
    assert (code, out) == (DataError.exit_code, "")
    assert "is missing" in err


def test_check_for_seven_emotions_leaves_contempt_out(tmp_path, fl_client):
    save(tmp_path / "contempt" / "a.png", 0)
    assert fl_client("data", "check", tmp_path)[0] == 0
    assert fl_client("data", "check", "--seven", tmp_path)[0] == DataError.exit_code


def test_check_prints_json_for_programs_and_nothing_else(tmp_path, fl_client):
    save(tmp_path / "anger" / "a.png", 0)
    code, out, err = fl_client("data", "check", tmp_path, "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["counts"]["anger"] == 1


def test_check_writes_a_sheet_for_its_owner_only(tmp_path, fl_client):
    save(tmp_path / "my_faces" / "anger" / "a.png", 0)
    code, out, _ = fl_client("data", "check", tmp_path / "my_faces", "--sheet", tmp_path / "sheet.png")
    assert code == 0
    assert str(tmp_path / "sheet.png") in out
    assert (tmp_path / "sheet.png").stat().st_mode & 0o777 == 0o600
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 500


def test_a_sheet_that_is_no_png_or_has_no_folder_is_refused(tmp_path, fl_client):
    save(tmp_path / "my_faces" / "anger" / "a.png", 0)
    code, _, err = fl_client("data", "check", tmp_path / "my_faces", "--sheet", tmp_path / "sheet.jpg")
    assert (code, "writes a .png file" in err) == (ConfigError.exit_code, True)
    code, _, err = fl_client("data", "check", tmp_path / "my_faces", "--sheet", tmp_path / "absent" / "sheet.png")
    assert (code, "its folder does not exist" in err) == (DeviceError.exit_code, True)


def test_strict_fails_on_a_folder_with_faults_and_says_how_many(tmp_path, fl_client):
    for seed, name in enumerate(EMOTIONS_8):
        save(tmp_path / name / "a.png", seed)
    save(tmp_path / "anger" / "b.png", EMOTIONS_8.index("anger"))
    for path in (tmp_path, *tmp_path.rglob("*")):
        path.chmod(0o700 if path.is_dir() else 0o600)
    assert fl_client("data", "check", tmp_path)[0] == 0
    code, _, err = fl_client("data", "check", tmp_path, "--strict")
    assert code == DataError.exit_code
    assert "is not without faults: 1 left out." in err
    (tmp_path / "anger" / "b.png").unlink()
    assert fl_client("data", "check", tmp_path, "--strict")[0] == 0
