import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from common.canonical import encode
from common.errors import ConfigError, RunError
from simulation import demo
from simulation.cli import demo as command
from simulation.demo import demo_folder, earlier_base, public_base
from simulation.run import REGISTRY
from simulation.warm_up import BASE


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A first model that has learnt nothing, from few faces."""
    monkeypatch.setattr(demo, "PUBLIC_FACES", 60)
    monkeypatch.setattr(demo, "PUBLIC_EPOCHS", 0)


def performed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Any]:
    """What `fl-sim demo` performs, without performing it."""
    asked: list[Any] = []
    monkeypatch.setattr("simulation.cli.perform", lambda config, *_: asked.append(config.init))
    monkeypatch.setattr(demo, "film", lambda *_: tmp_path / "film")
    return asked


def test_a_wrong_option_is_said_before_anything_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "public_base", lambda _: pytest.fail("trained"))
    with pytest.raises(ConfigError, match="--workers must be at least 1"):
        command(folder=tmp_path / "d1", workers=0)
    assert list(tmp_path.iterdir()) == []


def test_a_demo_that_is_stopped_while_its_first_model_learns_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(_config: object, _faces: object, _train: object, _passes: int, folder: Path, _source: str) -> Path:
        (folder / "half").write_text("a model")
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "warm_up", stopped)
    with pytest.raises(KeyboardInterrupt):
        command(folder=tmp_path / "d1", workers=1)
    assert list(tmp_path.iterdir()) == []


def test_a_demo_that_failed_after_its_first_model_starts_from_it_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert earlier_base(tmp_path / "d1-base") is None
    base = public_base(tmp_path / "d1-base")
    assert base == tmp_path / "d1-base" / BASE
    assert [path.name for path in tmp_path.iterdir()] == ["d1-base"]
    monkeypatch.setattr(demo, "public_base", lambda _: pytest.fail("trained again"))
    asked = performed(monkeypatch, tmp_path)
    command(folder=tmp_path / "d1", workers=1)
    assert asked == [base]


def test_a_first_model_of_other_faces_is_not_taken_and_not_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    public_base(tmp_path / "d1-base")
    monkeypatch.setattr(demo, "PUBLIC_FACES", 90)
    with pytest.raises(RunError, match=r"d1-base is not empty. Give another --out\.$"):
        command(folder=tmp_path / "d1", workers=1)
    assert (tmp_path / "d1-base" / BASE).exists()


def test_an_empty_folder_is_filled_and_somebodys_files_stay(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    base = public_base(tmp_path / "empty")
    assert earlier_base(tmp_path / "empty") == base
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter").write_text("dear")
    with pytest.raises(RunError, match="is not empty"):
        public_base(tmp_path / "mine")
    assert (tmp_path / "mine" / "letter").read_text() == "dear"


@pytest.mark.parametrize(
    ("stored", "advice"),
    [({"run": "r", "config": {}}, "--resume"), ({"name": "another program's"}, r"--out\.$")],
)
def test_only_a_folder_of_a_run_is_said_to_be_resumable(tmp_path: Path, stored: dict[str, Any], advice: str) -> None:
    (tmp_path / "config.json").write_bytes(encode(stored))
    with pytest.raises(RunError, match=advice):
        command(folder=tmp_path, workers=1)


def test_a_demo_goes_where_the_readme_looks_until_that_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    assert f"fl-server models verify {demo_folder() / REGISTRY} " in readme
    public_base(Path("runs/demo-base"))
    assert demo_folder() == Path("runs/demo")
    shutil.rmtree(tmp_path / "runs" / "demo-base" / BASE)
    (tmp_path / "runs" / "demo-base" / "letter").write_text("dear")
    assert demo_folder() != Path("runs/demo")
    shutil.rmtree(tmp_path / "runs")
    (tmp_path / "runs" / "demo").mkdir(parents=True)
    assert re.fullmatch(r"runs/demo-\d{8}-\d{6}", str(demo_folder()))
