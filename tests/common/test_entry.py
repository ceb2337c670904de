"""Ctrl-C in the second that a command needs for its imports."""

import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

IMPORTS = """import os, signal, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background may have been told to ignore it
os.kill(os.getpid(), signal.SIGINT)
time.sleep(60)
"""


def test_ctrl_c_while_a_command_is_imported_is_one_word(tmp_path: Path) -> None:
    (tmp_path / "slow_cli.py").write_text(IMPORTS)
    code = f"import sys; sys.path.append({str(tmp_path)!r}); from common.entry import enter; enter('slow_cli')"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "Stopped.\n")


@pytest.mark.parametrize("name", ["fl-server", "fl-client", "fl-sim"])
def test_commands_begin_there(name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    scripts = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]["scripts"]
    module, function = scripts[name].split(":")
    monkeypatch.setattr("sys.argv", [name, "--help"])
    with pytest.raises(SystemExit) as end:
        getattr(import_module(module), function)()
    assert end.value.code == 0
    assert f"Usage: {name}" in capsys.readouterr().out
