import json

import pytest
from typer.testing import CliRunner

from common.certificates import new_key, public_pem
from common.console import command_line
from common.errors import ConfigError, RunError
from common.join_code import parse_join_code
from fl_client.enrolment import enrol
from fl_server.authority import Authority
from fl_server.device_commands import devices, invite, parse_lifetime, revoke
from fl_server.invitations import Invitations
from fl_server.roster import Roster
from fl_server.server_folder import Endpoint, ServerFolder
from tests.membership import Clock, serving

app = command_line("Test.")
for command in (invite, devices, revoke):
    app.command()(command)


@pytest.fixture
def folder(tmp_path):
    found = ServerFolder.prepare(tmp_path / "server")
    Authority.load_or_create(found.authority, ("192.0.2.7",), Clock())
    found.write_endpoint(Endpoint(address="192.0.2.7", fleet_port=8443, enrol_port=8444, device_port=8445))
    return found


def call(folder, *words):
    result = CliRunner().invoke(app, [*words, "--dir", str(folder.path)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def test_invite_prints_one_code_that_names_this_server(folder):
    code = parse_join_code(call(folder, "invite"))
    assert (code.address, code.port) == ("192.0.2.7", 8444)
    assert code.fingerprint == Authority.load(folder.authority, Clock()).fingerprint
    Invitations(folder.invitations, Clock()).redeem(code.token, "one")


def test_invite_prints_a_code_for_each_of_several_devices(folder):
    codes = json.loads(call(folder, "invite", "--count", "3", "--lifetime", "2h", "--json"))
    assert len({parse_join_code(code["code"]).token for code in codes}) == 3
    (first, *_) = Invitations(folder.invitations, Clock()).open_invitations()
    assert 7000 < (first.expires - Clock()()).total_seconds() < 7300


def test_the_code_of_the_command_lets_a_device_in(tmp_path):
    with serving(tmp_path / "server") as server:
        api = server.api
        server.folder.write_endpoint(
            Endpoint(address="127.0.0.1", fleet_port=8443, enrol_port=api.enrol_port, device_port=api.device_port)
        )
        enrol(call(server.folder, "invite"), tmp_path / "home", "laptop")
        assert "laptop" in call(server.folder, "devices")
        assert json.loads(call(server.folder, "revoke", "laptop", "--json"))["revoked"]
        assert server.members.roster.devices()[0].revoked


def test_devices_lists_members_and_the_revoked(folder):
    roster = Roster(folder.roster, Clock())
    for number, name in enumerate(["laptop", "phone"]):
        roster.add(name, public_pem(new_key().public_key()), f"{number:x}")
    call(folder, "revoke", "phone")
    table = call(folder, "devices")
    assert "member" in next(line for line in table.splitlines() if line.startswith("laptop"))
    assert "revoked" in next(line for line in table.splitlines() if line.startswith("phone"))
    assert "1 device may take part, 1 revoked, 0 join codes open." in table
    found = json.loads(call(folder, "devices", "--json"))
    assert [(device["name"], device["revoked"]) for device in found["devices"]] == [("laptop", False), ("phone", True)]


def test_an_unknown_device_cannot_be_revoked(folder):
    with pytest.raises(ConfigError, match="No device is called"):
        call(folder, "revoke", "nobody")


@pytest.mark.parametrize("words", [["invite"], ["devices"], ["revoke", "laptop"]])
def test_where_no_server_was_started_every_command_says_so_and_makes_nothing(tmp_path, words):
    with pytest.raises(RunError, match="fl-server start"):
        call(ServerFolder(tmp_path / "none"), *words)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(("text", "minutes"), [("30m", 30), ("2h", 120), ("7d", 7 * 24 * 60)])
def test_lifetimes_are_minutes_hours_or_days(text, minutes):
    assert parse_lifetime(text).total_seconds() == 60 * minutes


@pytest.mark.parametrize("text", ["", "30", "h", "-1h", "1.5h", "1w", "999999d"])
def test_another_lifetime_is_refused(text):
    with pytest.raises(ConfigError, match="lifetime"):
        parse_lifetime(text)
