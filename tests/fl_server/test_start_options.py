"""What `fl-server start` makes of its options: the settings of client-level privacy, all of them."""

import sys
from pathlib import Path
from typing import Any

import pytest

from common.config import ClientLevelConfig, RunConfig
from common.console import command_line, run_command_line
from common.errors import ConfigError, DataError
from fl_server import start_commands


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run `start` with these words up to the moment when it would listen: (exit code, the run's configuration)."""
    seen: list[RunConfig] = []
    monkeypatch.setattr(start_commands, "_serve", lambda home, run, *more: seen.append(run.config))
    app = command_line("test")
    app.command()(start_commands.start)

    def run(*words: str) -> tuple[object, RunConfig | None]:
        monkeypatch.setattr(sys, "argv", ["start", "--dir", str(tmp_path / "server"), *words])
        with pytest.raises(SystemExit) as stop:
            run_command_line(app)
        return stop.value.code, seen[-1] if seen else None

    return run


def test_every_setting_of_client_level_privacy_has_an_option(started: Any) -> None:
    words = "--client-dp central --client-epsilon 4 --client-delta 1e-6 --client-clip 0.5 --adaptive-clip --sum-bits 18"
    code, config = started(*words.split())
    assert code == 0
    wanted = ClientLevelConfig(mode="central", epsilon=4.0, delta=1e-6, clip=0.5, adaptive=True, bits=18)
    assert config.client_level == wanted
    assert all(getattr(wanted, name) != field.default for name, field in ClientLevelConfig.model_fields.items())


def test_how_many_models_stay_is_an_option(started: Any) -> None:
    code, config = started("--keep-models", "3")
    assert (code, config.server.keep_models) == (0, 3)


def test_faces_that_cannot_be_read_leave_no_run_behind(started: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, config = started("--evaluate", str(tmp_path / "typo.csv"))
    assert (code, config) == (DataError.exit_code, None)
    assert "typo.csv" in capsys.readouterr().err
    assert not (tmp_path / "server").exists()


def test_a_clip_that_follows_the_norms_is_for_central_noise_alone(started: Any, capsys: pytest.CaptureFixture[str]) -> None:
    code, config = started("--client-dp", "distributed", "--adaptive-clip")
    assert (code, config) == (ConfigError.exit_code, None)
    assert "--client-dp central" in capsys.readouterr().err


def test_a_folder_of_other_things_is_not_taken_for_a_server_s(
    started: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    faces = tmp_path / "server"
    (faces / "anger").mkdir(parents=True)
    code, config = started()
    assert (code, config) == (ConfigError.exit_code, None)
    assert "is not a server's folder and not empty" in capsys.readouterr().err
    assert [entry.name for entry in faces.iterdir()] == ["anger"]
    (faces / "anger").rename(faces / "lost+found")  # as a volume of its own has it
    (faces / ".hidden").touch()
    assert started()[0] == 0
    (faces / "notes.txt").touch()  # the operator's own, beside what is a server's by now
    assert started("--new")[0] == 0
