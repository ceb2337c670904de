"""How a command line ends where it cannot go on."""

import json
from pathlib import Path

import pytest

from common.console import command_line, print_json, run_command_line


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (KeyboardInterrupt(), 130, "Stopped."),
        (RuntimeError("Symlink loop from '/a'"), 2, "Symlink loop from '/a': name another place."),
        (OSError(28, "No space left on device", "/a/b"), 8, "/a/b: No space left on device."),
    ],
)
def test_one_sentence_and_an_exit_code(
    error: BaseException, code: int, sentence: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    app = command_line("test")

    @app.command()
    def fail() -> None:
        raise error

    monkeypatch.setattr("sys.argv", ["test"])
    with pytest.raises(SystemExit) as end:
        run_command_line(app)
    assert (end.value.code, sentence in capsys.readouterr().err) == (code, True)


@pytest.mark.parametrize("name", ["loop", "~nobody-has-this-name/x"])
def test_a_path_that_leads_nowhere_is_said(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        run_command_line(lambda: print(Path(name).expanduser().resolve(strict=False) / "x"))
    assert end.value.code == 2
    assert "name another place" in capsys.readouterr().err


def test_json_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    facts = {"path": "/data/:cat:/[bold]faces/" + 30 * "long name "}
    print_json(facts, indent=None)
    assert capsys.readouterr().out == json.dumps(facts) + "\n"


def test_any_other_fault_is_not_hidden() -> None:
    def fault() -> None:
        raise RuntimeError("a fault of ours")

    with pytest.raises(RuntimeError, match="a fault of ours"):
        run_command_line(fault)
