import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from common.errors import EmoflError, RunError
from models.pretraining.checkpoint import Checkpoint
from simulation.cli import app
from tests.models.pretraining.test_data import MAJORITY, write

ROOT = Path(__file__).parents[2]
MAIN = [sys.executable, "-W", "ignore", "-c", "from simulation.cli import main; main()", "pretrain"]
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "COLUMNS": "200", "PYTHONPATH": str(ROOT), "HOME": "/nonexistent", "OMP_NUM_THREADS": "1"}
RECIPE = """
variant = "mobilenet_v2_tiny_128"
stem_stride = 2
images = {images}
batch_size = 4
warm_up = 8
validate_every = 16
save_every = 8
"""


def pretrain(*words: object) -> Result:
    """The command in this process."""
    return CliRunner().invoke(app, ["pretrain", *map(str, words)])


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    (tmp_path / "recipe.toml").write_text(RECIPE.format(images=32))
    return write(tmp_path / "data", [MAJORITY] * 14, ["Training"] * 8 + ["PublicTest"] * 3 + ["PrivateTest"] * 3)


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["--out", "x"], 2, "Name the faces to learn from"),
        (["--out", "x", "--data", "nowhere.csv"], 3, "There is no file"),
        (["--out", "x", "--data", ".", "--recipe", "none.toml"], 2, "cannot be read"),
        (["--out", "x", "--data", ".", "--variant", "resnet50"], 2, "There is no variant 'resnet50'"),
        (["--out", "x", "--data", ".", "--device", "abacus"], 2, "There is no device 'abacus'"),
        (["--out", "x", "--data", ".", "--key", "k.pem"], 2, "give it with --ship"),
        (["--out", "x", "--ship", "base"], 8, "is not finished"),
    ],
)
def test_bad_input_is_one_sentence_with_its_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], code: int, sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    failure = pretrain(*words).exception
    assert isinstance(failure, EmoflError)
    assert failure.exit_code == code
    assert sentence in str(failure)
    assert not (tmp_path / "base").exists()


def test_one_command_trains_and_another_ships_what_it_learned(data: Path, tmp_path: Path) -> None:
    run, recipe = tmp_path / "run", tmp_path / "recipe.toml"
    done = pretrain("--data", data, "--out", run, "--recipe", recipe)
    assert done.exit_code == 0, done.exception
    other = pretrain("--data", data, "--out", run).exception
    assert isinstance(other, RunError)
    assert "holds a training by another recipe" in str(other)
    shipped = pretrain("--out", run, "--ship", tmp_path / "base", "--key", tmp_path / "keys" / "publisher.pem")
    assert shipped.exit_code == 0, shipped.exception
    names = {"base.safetensors", "MODEL_CARD.md", "manifest.json", "manifest.sig", "publisher.pub"}
    assert {path.name for path in (tmp_path / "base").iterdir()} == names
    assert (tmp_path / "keys" / "publisher.pem").stat().st_mode & 0o077 == 0


def test_other_data_is_refused_before_and_after_the_end(data: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = write(tmp_path / "other", [MAJORITY] * 15, ["Training"] * 9 + ["PublicTest"] * 3 + ["PrivateTest"] * 3)
    words = ["--out", tmp_path / "run", "--recipe", tmp_path / "recipe.toml"]
    assert pretrain("--data", data, *words).exit_code == 0
    for more in ([], ["--images", 64]):
        failure = pretrain("--data", other, *words, *more).exception
        assert isinstance(failure, RunError)
        assert "holds a training on other faces than these; give the --data that it began with" in str(failure)
    assert pretrain("--data", data / "fer2013.csv", *words).exit_code == 0


def test_figures_of_another_version_are_not_shipped(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for content, sentence in (("{", "is damaged"), ('{"images": 3}', "is of another version")):
        (run / "result.json").write_text(content)
        failure = pretrain("--out", run, "--ship", tmp_path / "base").exception
        assert isinstance(failure, RunError)
        assert sentence in str(failure)


@pytest.mark.slow
def test_ctrl_c_keeps_what_was_learned_and_the_same_command_goes_on(data: Path, tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(RECIPE.format(images=4_000_000))
    words = ["--data", "data", "--out", "run", "--recipe", "recipe.toml"]
    process = subprocess.Popen(
        [*MAIN, *words], cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert any(line.split()[:2] == ["16", "faces"] for line in process.stdout), "there was no first look at PublicTest"
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "The same command goes on." in said
    assert "Traceback" not in said
    seen = Checkpoint.load(tmp_path / "run" / "checkpoint.safetensors").step * 4
    assert seen >= 16
    done = pretrain("--data", data, "--out", tmp_path / "run", "--recipe", tmp_path / "recipe.toml", "--images", seen + 16)
    assert done.exit_code == 0, done.exception
    assert json.loads((tmp_path / "run" / "result.json").read_text())["images"] == seen + 16
