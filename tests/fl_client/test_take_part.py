"""How a device becomes a member, and what it is told when it may not take part."""

from pathlib import Path

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
from common.errors import ConfigError
from fl_client import enrolment, take_part
from fl_client.node_process import on_battery, read_policy
from fl_client.policy import Policy


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(take_part, "LOCAL_PATIENCE", 0.6)


def enrolling(monkeypatch: pytest.MonkeyPatch, outcomes: dict[str, EnrolmentError | None]) -> list[str]:
    """`enrol` answers each code as `outcomes` says; returns the list of codes it will have been given."""
    used: list[str] = []

    def enrol(code: str, home: Path, name: str) -> str:
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
    ("code", "kind"), [(take_part.REVOKED, DeviceRevoked), (take_part.NOT_ENROLLED, DeviceUnknown), (2, ConfigError)]
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
    assert isinstance(CliRunner().invoke(app, ["--data", "x", "webcam"]).exception, ConfigError)
    assert isinstance(CliRunner().invoke(app, ["--nice", "3"]).exception, ConfigError)
    assert "--join" in CliRunner().invoke(app, ["--help"]).output


def test_the_owners_rules_are_a_file_and_a_damaged_one_stops_everything(tmp_path: Path) -> None:
    assert read_policy(tmp_path) == Policy()
    (tmp_path / "policy.toml").write_text("largest_epsilon = 2.0\n")
    assert read_policy(tmp_path).largest_epsilon == 2.0
    for wrong in ("largest_epsilon = -1\n", "largest_epsilom = 2\n", "= 2\n"):
        (tmp_path / "policy.toml").write_text(wrong)
        with pytest.raises(ConfigError):
            read_policy(tmp_path)


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
