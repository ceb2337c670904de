"""`fl-server stop --json`, `resume --json`, and what a start listens on."""

import json
from pathlib import Path
from typing import Any

import pytest

from common.config import RunConfig
from common.console import command_line, run_command_line
from fl_server import service_process, start_commands, status_commands
from fl_server.addresses import every_address
from fl_server.plan import Plan
from fl_server.run_folder import RunFolder
from fl_server.server_folder import ServerFolder
from tests.fl_server.test_service_process import holding


class Became(Exception):
    """In place of the server's process."""


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> list[Plan]:
    seen: list[Plan] = []

    def become(plan: Plan) -> None:
        seen.append(plan)
        raise Became

    monkeypatch.setattr(service_process, "become", become)
    return seen


def call(monkeypatch: pytest.MonkeyPatch, command: Any, *words: str) -> int:
    app = command_line("test")
    app.command()(command)
    monkeypatch.setattr("sys.argv", ["fl-server", *words])
    with pytest.raises(SystemExit) as ended:
        run_command_line(app)
    return int(ended.value.code or 0)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    ServerFolder.prepare(tmp_path)
    path = tmp_path / "runs" / "20261121-120000-abcd"
    path.mkdir(parents=True)
    from common.canonical import encode

    config = RunConfig.model_validate({"data": {"clients": 10}})
    (path / "config.json").write_bytes(encode({"run": path.name, "config": config.model_dump(mode="json")}))
    (tmp_path / "latest-run").write_text(path.name)
    return RunFolder(path)


def test_stop_as_json_names_the_process_that_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with holding(tmp_path, "obedient") as process:
        assert call(monkeypatch, status_commands.stop, "--dir", str(tmp_path), "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"dir": str(tmp_path), "stopped": True, "process": process}


def test_stop_where_nothing_runs_prints_no_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, status_commands.stop, "--dir", str(tmp_path), "--json") == 8
    assert capsys.readouterr().out == ""


def test_resume_goes_on_with_the_last_run_and_its_own_settings_and_says_so_as_json(
    tmp_path: Path, run: RunFolder, plans: list[Plan], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(Became):
        start_commands.resume(tmp_path, host="::1", as_json=True)
    (plan,) = plans
    assert plan.run == run
    assert (plan.host, plan.address) == ("::1", "::1")
    assert "127.0.0.1" in plan.names
    assert json.loads(capsys.readouterr().out) == {
        "dir": str(tmp_path),
        "run": run.name,
        "round": 0,
        "rounds": run.config.server.rounds,
        "address": "::1",
    }


def test_a_start_listens_on_all_addresses_of_both_kinds_and_its_certificate_has_them(
    tmp_path: Path, run: RunFolder, plans: list[Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start_commands, "own_addresses", lambda: ["127.0.0.1", "192.0.2.7", "::1", "2001:db8::2"])
    with pytest.raises(Became):
        start_commands.resume(tmp_path)
    (plan,) = plans
    assert (plan.host, plan.address) == (every_address(), "192.0.2.7")
    assert {"127.0.0.1", "::1", "2001:db8::2"} <= set(plan.names)
