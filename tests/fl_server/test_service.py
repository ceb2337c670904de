"""What the server does beside Flower: choose a run, keep devices in step, hold its folder alone."""

import errno
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest

from common import local_join
from common.certificates import new_key, public_pem
from common.config import RunConfig, make_config, merge_settings, nest_settings, read_config
from common.errors import ConfigError, IntegrityError, ModelError, RunError
from common.join_code import JoinCode, parse_join_code
from fl_server import rounds, run_folder
from fl_server.invitations import Invitations
from fl_server.plan import Plan
from fl_server.roster import Roster
from fl_server.run_folder import RunFolder
from fl_server.server_lock import only_server, running_server
from fl_server.service import Devices, LocalOffer, Troubles
from fl_server.service_process import PLAN, taken_plan
from fl_server.start_commands import _choose_run
from fl_server.task import Task

TINY = {"model": {"name": "mobilenet_v2_tiny"}}


def clock() -> datetime:
    return datetime.now(UTC)


def _settings() -> RunConfig:
    return make_config(TINY)


@dataclass
class FakeLink:
    """Flower's nodes as a SuperLink keeps them; `lost` keys are refused for good."""

    nodes: dict[bytes, tuple[int, bool]] = field(default_factory=dict)
    lost: set[bytes] = field(default_factory=set)
    suspended: set[bytes] = field(default_factory=set)

    def enrol(self, key: bytes, name: str) -> int:
        if key in self.lost:
            raise RunError("revoked")
        self.suspended.discard(key)
        return self.nodes.setdefault(key, (len(self.nodes) + 10, True))[0]

    def revoke(self, key: bytes) -> None:
        self.nodes.pop(key, None)
        self.lost.add(key)

    def suspend(self, key: bytes) -> None:
        self.suspended.add(key)

    def enrolled(self) -> dict[bytes, tuple[int, bool]]:
        return dict(self.nodes)


@pytest.fixture
def keys() -> list[bytes]:
    return [public_pem(new_key().public_key()) for _ in range(3)]


def test_flowers_nodes_follow_the_roster(tmp_path: Path, keys: list[bytes]) -> None:
    said: list[str] = []
    roster, link = Roster(tmp_path / "devices.json", clock), FakeLink()
    devices = Devices(roster, link, said.append)  # type: ignore[arg-type]
    link.enrol(keys[2], "nobody the roster knows")
    roster.add("anna", keys[0], "01")
    assert devices.synchronise()
    assert set(link.nodes) - link.suspended == {keys[0]}
    assert not link.lost
    assert not devices.synchronise()
    roster.add("ben", keys[1], "02")
    roster.revoke("anna")
    assert devices.synchronise()
    assert set(link.nodes) - link.suspended == {keys[1]}
    assert keys[0] in link.lost
    assert devices.online() == ["ben"]
    assert said[1:] == ["anna is revoked.", "ben has joined."]


def test_a_device_that_flower_refuses_does_not_stop_the_others(tmp_path: Path, keys: list[bytes]) -> None:
    roster, link = Roster(tmp_path / "devices.json", clock), FakeLink(lost={keys[0]})
    roster.add("anna", keys[0], "01")
    roster.add("ben", keys[1], "02")
    Devices(roster, link, print).synchronise()  # type: ignore[arg-type]
    assert set(link.nodes) == {keys[1]}


def test_a_code_for_this_machine_is_replaced_once_it_is_used_and_not_because_others_join(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    invitations = Invitations(tmp_path / "invitations.json", clock)
    offer = LocalOffer(invitations, lambda token: JoinCode("127.0.0.1", 8444, "ab" * 32, token))
    offer.renew(used=False)
    first = local_join.find()
    assert first is not None
    offer.renew(used=True)
    assert local_join.find() == first
    assert len(invitations.open_invitations()) == 1
    invitations.redeem(parse_join_code(first).token, "a device")
    offer.renew(used=True)
    assert local_join.find() not in (None, first)
    assert len(invitations.open_invitations()) == 1


def local_offer(tmp_path: Path) -> tuple[LocalOffer, Invitations]:
    invitations = Invitations(tmp_path / "invitations.json", clock)
    return LocalOffer(invitations, lambda token: JoinCode("127.0.0.1", 8444, "ab" * 32, token)), invitations


def test_where_there_is_no_safe_place_for_a_code_none_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user's runtime folder goes when the session ends: half a day later the invitations' file could not be read."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run" / "1000"))
    offer, invitations = local_offer(tmp_path)
    for _ in range(20):
        offer.renew(used=False)
    assert invitations.open_invitations() == ()
    (tmp_path / "run" / "1000").mkdir(parents=True)
    offer.renew(used=False)
    assert len(invitations.open_invitations()) == 1
    assert local_join.find() is not None


def test_a_code_that_has_gone_is_offered_again_and_another_servers_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    offer, invitations = local_offer(tmp_path)
    offer.renew(used=False)
    first = local_join.find()
    assert first is not None
    local_join.withdraw(first)
    offer.renew(used=False)
    assert local_join.find() == first
    assert len(invitations.open_invitations()) == 1
    local_join.offer("ANOTHER SERVER'S")
    offer.renew(used=False)
    offer.withdraw()
    assert local_join.find() == "ANOTHER SERVER'S"


def test_what_goes_wrong_in_one_part_is_said_once_and_stops_no_other(tmp_path: Path) -> None:
    said: list[str] = []
    done: list[str] = []
    troubles = Troubles(tmp_path, said.append, told=True)

    def damaged() -> None:
        raise IntegrityError("devices.json is damaged.")

    def full() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    for _ in range(3):
        troubles.meet("devices", damaged)
        troubles.meet("status", full)
        troubles.meet("run", lambda: done.append("looked"))
    assert said == ["devices.json is damaged. The server goes on."]
    assert done == ["looked"] * 3
    troubles.meet("devices", lambda: None)
    troubles.meet("devices", damaged)
    assert len(said) == 2
    Troubles(tmp_path, said.append, told=False).meet("status", full)
    assert "no room left" in said[-1]


def test_the_run_that_is_served_is_the_one_that_the_next_start_goes_on_with(tmp_path: Path) -> None:
    """Two starts at once: both make a run, and one serves."""
    served, other = (RunFolder.create(tmp_path, _settings(), clock()) for _ in range(2))
    assert RunFolder.latest(tmp_path) == other
    served.become_latest()
    assert RunFolder.latest(tmp_path) == served


def test_one_server_holds_a_folder_at_a_time(tmp_path: Path) -> None:
    assert running_server(tmp_path) is None
    with only_server(tmp_path):
        assert running_server(tmp_path) is not None
        with pytest.raises(RunError, match="already runs"), only_server(tmp_path):
            pass
    assert running_server(tmp_path) is None
    with only_server(tmp_path):
        pass


def test_a_start_goes_on_with_an_unfinished_run_and_begins_another_when_told(tmp_path: Path) -> None:
    values = merge_settings({}, nest_settings({"server.rounds": 3, "server.cohort": None})) | TINY
    first = _choose_run(tmp_path, values, new=False)
    assert first.config.server.rounds == 3
    assert _choose_run(tmp_path, {}, new=False) == first
    assert _choose_run(tmp_path, values, new=False) == first
    with pytest.raises(ConfigError, match="not its own"):
        _choose_run(tmp_path, values | {"server": {"rounds": 4}}, new=False)
    second = _choose_run(tmp_path, values | {"server": {"rounds": 4}}, new=True)
    assert second != first
    assert RunFolder.latest(tmp_path) == second


def test_settings_that_cannot_run_leave_no_run_behind(tmp_path: Path) -> None:
    with pytest.raises(ModelError):
        _choose_run(tmp_path, {"model": {"name": "none such"}}, new=False)
    assert RunFolder.latest(tmp_path) is None


def test_options_win_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "fl.toml"
    file.write_text("[server]\nrounds = 5\nmin_replies = 4\n")
    assert merge_settings(read_config(file), nest_settings({"server.rounds": 7, "server.min_replies": None})) == {
        "server": {"rounds": 7, "min_replies": 4}
    }
    file.write_text("server = 5\n")
    with pytest.raises(ConfigError, match="group of settings"):
        merge_settings(read_config(file), nest_settings({"server.rounds": 7}))


def test_the_names_of_a_runs_files_are_those_that_its_rounds_write() -> None:
    assert (run_folder.CHECKPOINT, run_folder.METRICS) == (rounds.CHECKPOINT, rounds.METRICS)


def test_a_task_and_a_plan_reach_another_process_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fl_server import service_process
    from fl_server.server_folder import ServerFolder

    task = Task("token", "127.0.0.1:1", ServerFolder(tmp_path), RunFolder(tmp_path / "runs" / "a"), 7)
    assert Task.take(task.environment()) == task
    with pytest.raises(RunError, match="fl-server start"):
        Task.take({})
    seen: dict[str, str] = {}
    monkeypatch.setattr(service_process.os, "execve", lambda path, arguments, environment: seen.update(environment))
    plan = Plan(tmp_path, "0.0.0.0", "192.0.2.2", ("localhost",), 1, 2, 3, RunFolder(tmp_path / "runs" / "a"), True)
    service_process.become(plan)
    monkeypatch.setenv(PLAN, seen[PLAN])
    assert taken_plan() == plan
    with pytest.raises(RunError, match="fl-server start"):
        taken_plan()


def test_a_list_of_devices_that_is_away_for_a_moment_revokes_nobody(tmp_path: Path, keys: list[bytes]) -> None:
    said: list[str] = []
    path = tmp_path / "devices.json"
    roster, link = Roster(path, clock), FakeLink()
    devices = Devices(roster, link, said.append)  # type: ignore[arg-type]
    roster.add("anna", keys[0], "01")
    devices.synchronise()
    path.rename(tmp_path / "away")
    assert devices.synchronise()
    assert link.suspended == {keys[0]}
    assert not link.lost
    assert "put devices.json back" in said[-1]
    (tmp_path / "away").rename(path)
    assert devices.synchronise()
    assert not link.suspended
