import sys

import numpy as np
import pytest
from PIL import Image

from common.console import command_line, run_command_line
from common.errors import DataError
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
