"""How a device becomes a member, and what it is told when it may not take part."""

import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer
from typer.testing import CliRunner

from common import local_join
from common.console import command_line
from common.device_api.refusals import (
    DeviceRevoked,
    DeviceUnknown,
    EnrolmentError,
    InvitationUsed,
    NotEnrolled,
    ServerUnreachable,
)
from common.errors import ConfigError, IntegrityError, RunError
from common.join_code import JoinCode
from common.privacy.ledger import Ledger
from common.privacy.release import Release
from fl_client import enrolment, take_part
from fl_client.cli import app as whole_client
from fl_client.node_process import on_battery
from fl_client.node_settings import VARIABLE, Ending, NodeSettings
from fl_client.own_home import own_home, remember_home
from fl_client.own_ledger import own_ledger
from fl_client.policy import Policy
from fl_client.policy_file import change_policy
from simulation.drawn_folder import draw_folder


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(take_part, "LOCAL_PATIENCE", 0.6)


def enrolling(monkeypatch: pytest.MonkeyPatch, outcomes: dict[str, EnrolmentError | None]) -> list[str]:
    """`enrol` answers each code as `outcomes` says; returns the list of codes it will have been given."""
    used: list[str] = []

    def enrol(code: str, home: Path, name: str, say: Callable[[str], None]) -> str:
        used.append(code)
        if error := outcomes[code]:
            # The server offers another as soon as one is used.
            local_join.offer("GOOD") if "GOOD" in outcomes else None
            raise error
        return "member"

    monkeypatch.setattr(enrolment, "enrol", enrol)
    return used


def test_a_code_that_was_given_is_used_and_its_refusal_is_final(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    local_join.offer("LOCAL")
    used = enrolling(monkeypatch, {"CODE": InvitationUsed()})
    with pytest.raises(InvitationUsed):
        take_part.become_member(tmp_path, "CODE", "anna")
    assert used == ["CODE"]


def test_on_the_servers_machine_no_code_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    local_join.offer("LOCAL")
    enrolling(monkeypatch, {"LOCAL": None})
    assert take_part.become_member(tmp_path, None, "anna") == "member"


@pytest.mark.parametrize("error", [InvitationUsed(), ServerUnreachable()])
def test_a_stale_local_code_is_tried_once_and_the_next_one_then(
    error: EnrolmentError, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local_join.offer("STALE")
    used = enrolling(monkeypatch, {"STALE": error, "GOOD": None})
    assert take_part.become_member(tmp_path, None, "anna") == "member"
    assert used == ["STALE", "GOOD"]


def test_when_no_other_local_code_comes_the_reason_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    local_join.offer("STALE")
    used = enrolling(monkeypatch, {"STALE": ServerUnreachable()})
    with pytest.raises(ServerUnreachable):
        take_part.become_member(tmp_path, None, "anna")
    assert used == ["STALE"]


def test_elsewhere_a_code_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(NotEnrolled, match="--join CODE"):
        take_part.become_member(tmp_path, None, "anna")


@pytest.mark.parametrize(
    ("code", "kind"), [(Ending.REVOKED, DeviceRevoked), (Ending.NOT_ENROLLED, DeviceUnknown), (2, ConfigError)]
)
def test_what_ends_a_device_for_good_is_an_error_whatever_the_process_returned(code: int, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        take_part._conclude(code)


def test_the_main_command_leaves_room_for_the_others() -> None:
    app = command_line("A client.")
    app.callback(invoke_without_command=True)(take_part.take_part)

    @app.command()
    def webcam() -> None:
        typer.echo("webcam runs")

    assert "webcam runs" in CliRunner().invoke(app, ["webcam"]).output
    assert isinstance(CliRunner().invoke(app, ["--nice", "3"]).exception, ConfigError)
    assert "--join" in CliRunner().invoke(app, ["--help"]).output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--home", "/h", "policy", "--data", "faces"], "write fl-client policy --home ..."),
        (["--data", "faces", "policy"], "write fl-client policy --data ..."),
        (["--nice", "5", "policy", "--data", "faces"], "it goes with fl-client --data DIR, without `policy`."),
        (["--data", "faces", "data", "check", "faces"], "it goes with fl-client --data DIR, without `data`."),
        (["--only-when-charging", "webcam"], "it goes with fl-client --data DIR, without `webcam`."),
    ],
)
def test_no_option_before_a_command_is_dropped_without_a_word(words: list[str], said: str) -> None:
    refused = CliRunner().invoke(whole_client, words).exception
    assert isinstance(refused, ConfigError)
    assert str(refused).startswith(f"{words[0]} stands before `")
    assert str(refused).endswith(said)


def test_a_client_that_starts_is_remembered_and_names_the_rules_that_it_does_not_obey(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    faces, home = tmp_path / "faces", tmp_path / "home"
    draw_folder(faces, 8, people=1, seed=1)
    change_policy(faces / ".emofl", {"largest_epsilon": "1"})
    member = SimpleNamespace(authority="ab" * 32, address="example.org", device_name="anna", home=home)
    monkeypatch.setattr(take_part, "become_member", lambda *_: member)
    monkeypatch.setattr(take_part, "_follow_and_train", lambda *_: None)
    take_part._run(NodeSettings(home=home, data=faces), None, "anna")
    said = "".join(capsys.readouterr().err.split("\n"))
    assert f"Not obeyed: {faces / '.emofl' / 'policy.toml'}; this device obeys {home / 'policy.toml'}." in said
    assert own_home(faces, None).path == home


def test_a_server_that_the_owner_does_not_allow_is_told_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = JoinCode("example.org", 8444, "ab" * 32, "cd" * 16).encode()
    used = enrolling(monkeypatch, {code: None})
    with pytest.raises(ConfigError, match="allowed_servers"):
        take_part.become_member(tmp_path, code, "anna", Policy(allowed_servers=("12" * 32,)))
    local_join.offer(code)
    with pytest.raises(ConfigError, match="allowed_servers"):
        take_part.become_member(tmp_path, None, "anna", Policy(allowed_servers=("12" * 32,)))
    assert used == []
    assert take_part.become_member(tmp_path, code, "anna", Policy(allowed_servers=("ab" * 32,))) == "member"


def test_a_join_code_can_come_from_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("ABCD\nEFGH\n"))
    assert take_part._typed() == "ABCD\nEFGH\n"
    for nothing in (io.StringIO("\n"), None):
        monkeypatch.setattr(sys, "stdin", nothing)
        with pytest.raises(ConfigError, match="standard input"):
            take_part._typed()


@contextmanager
def client(faces: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", "from fl_client.cli import main; main()", "--data", str(faces), *arguments]
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in a shell's background job, and inherited
        signal.signal(signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
        env=dict(os.environ) | {"COLUMNS": "300"},
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.network
def test_ctrl_c_while_joining_ends_at_once_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    faces = tmp_path / "faces"
    draw_folder(faces, 8, people=1, seed=1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(60)
        code = JoinCode("127.0.0.1", silent.getsockname()[1], "ab" * 32, "cd" * 16).encode()
        with client(faces, "--join", "-") as process:
            process.stdin.write(code)
            process.stdin.close()
            process.stdin = None
            connection, _ = silent.accept()
            with connection:
                connection.recv(1)
                process.send_signal(signal.SIGINT)
                _, said = process.communicate(timeout=8)  # the handshake alone would take 10 s, and then be an error
    assert process.returncode == 130
    assert "Traceback" not in said
    assert code not in " ".join(process.args)
    assert {path.name for path in (faces / ".emofl").iterdir()} == {"lock", "ledger.lock"}


@pytest.mark.network
def test_a_device_whose_ledger_is_lost_does_not_start(tmp_path: Path) -> None:
    faces = tmp_path / "faces"
    draw_folder(faces, 8, people=1, seed=1)
    with Ledger(own_ledger(faces / ".emofl", faces)).locked() as ledger:
        ledger.debit(Release(1.0, 0.1, 1), run="r", round_number=1, now=datetime.now(UTC))
    shutil.rmtree(faces / ".emofl")
    with client(faces) as process:
        _, said = process.communicate(timeout=60)
    assert process.returncode == IntegrityError.exit_code
    assert "These faces have a privacy ledger with 1 debit," in said
    assert not (faces / ".emofl").exists()  # so that the folder can be put back


def test_the_node_is_told_what_it_takes(tmp_path: Path) -> None:
    settings = NodeSettings(home=tmp_path, data=tmp_path, threads=3, chunk_size=100)
    environment = settings.environment()
    assert NodeSettings.take(environment) == settings
    assert environment["OMP_NUM_THREADS"] == "3"
    for wrong in ({}, {VARIABLE: "{}"}, {VARIABLE: json.dumps({"home": "x"})}):
        with pytest.raises(RunError, match="fl-client --data"):
            NodeSettings.take(wrong)


@pytest.mark.parametrize(
    ("supplies", "expected"),
    [
        ({}, False),
        ({"BAT0": ("Battery", None)}, True),
        ({"BAT0": ("Battery", None), "AC": ("Mains", "1")}, False),
        ({"BAT0": ("Battery", None), "AC": ("Mains", "0")}, True),
        ({"BAT0": ("Battery", None), "AC": ("Mains", "0"), "usb": ("USB", "1")}, False),
        ({"AC": ("Mains", "0")}, False),
    ],
)
def test_on_battery_means_a_battery_and_no_mains(
    supplies: dict[str, tuple[str, str | None]], expected: bool, tmp_path: Path
) -> None:
    for name, (kind, online) in supplies.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "type").write_text(f"{kind}\n")
        if online is not None:
            (tmp_path / name / "online").write_text(f"{online}\n")
    assert on_battery(tmp_path) is expected


def test_a_start_without_home_takes_the_home_of_the_last_one_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rules that `fl-client policy` changes without --home lie there."""
    faces, home, started = tmp_path / "faces", tmp_path / "elsewhere", list[Path]()
    for folder in (faces, home):
        folder.mkdir()
    monkeypatch.setattr(take_part, "_run", lambda settings, *_: started.append(settings.home))
    first = CliRunner().invoke(whole_client, ["--data", str(faces)])
    remember_home(faces, home)
    then = CliRunner().invoke(whole_client, ["--data", str(faces)])
    assert started == [faces / ".emofl", home] == [started[0], own_home(faces, None).path]
    assert "home is" not in first.output
    assert f"home is {home}, as at its last start" in " ".join(then.output.split())
