"""The process that takes part: its hours, its budget to the last round, and a debit that outlives a kill. Over a real folder."""

import json
import logging
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch
from flwr.app import Context, Message, RecordDict

from common.arrays import pack
from common.config import ModelConfig, PrivacyConfig, TrainConfig, UploadConfig
from common.console import command_line, run_command_line
from common.errors import ConfigError
from common.messages import TrainReply, TrainRequest, encode_request
from common.parameters import read_parameters
from common.privacy.accountant import calibrate_noise
from common.privacy.ledger import Ledger
from common.privacy.release import Release
from fl_client.node_process import Hours, LateApp
from fl_client.node_settings import NodeSettings
from fl_client.own_ledger import own_ledger
from fl_client.policy import Policy
from fl_client.privacy_commands import privacy
from models.mobilenet import build_model
from models.preprocess import Preprocessing
from simulation.drawn_folder import draw_folder

MODEL = ModelConfig(name="mobilenet_v2_025", stem_stride=2, trainable="head")
AUTHORITY = "ab" * 32
ROOT = Path(__file__).parents[2]


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    draw_folder(tmp_path / "faces", 40, people=2, seed=3)
    return tmp_path / "faces"


def request(number: int, rounds: int = 3) -> TrainRequest:
    return TrainRequest(
        run="run-2",
        round=number,
        rounds=rounds,
        participations=rounds,
        model=MODEL,
        train=TrainConfig(batch_size=8, local_steps=2),
        privacy=PrivacyConfig(epsilon=8.0),
        upload=UploadConfig(secure=False),
        preprocessing=Preprocessing().model_dump(),
    )


def message(number: int) -> Message:
    torch.manual_seed(0)
    content = encode_request(request(number), pack(read_parameters(build_model(MODEL))))
    asked = Message(content, dst_node_id=2, message_type="train")
    asked.metadata.__dict__["_message_id"] = "m"
    return asked


def context() -> Context:
    return Context(run_id=1, node_id=2, node_config={}, state=RecordDict(), run_config={})


def reply_to(app: LateApp, number: int) -> TrainReply:
    answer = app(message=message(number), context=context())
    return TrainReply.model_validate_json(str(answer.content["reply"]["json"]))


Owner = Callable[..., str]


@pytest.fixture
def owner(faces: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Owner:
    """What `fl-client privacy` prints with these words."""
    app = command_line("test")
    app.command()(privacy)

    def ask(*words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["privacy", "--data", str(faces), *words])
        with pytest.raises(SystemExit) as stop:
            run_command_line(app)
        assert stop.value.code == 0
        return capsys.readouterr().out

    return ask


def test_a_device_at_90_percent_takes_part_until_it_would_overspend_then_refuses_and_says_so(
    faces: Path, owner: Owner, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "emofl.client")
    home = faces / ".emofl"
    home.mkdir()
    place = own_ledger(home, faces, AUTHORITY)
    with Ledger(place).locked() as ledger:
        before = Release(calibrate_noise([], 0.2, 40, 0.9 * 8, 1e-5), 0.2, 40)
        ledger.debit(before, run="run-1", round_number=1, now=datetime.now(UTC))
    rules = Policy(require_secure_aggregation=False)
    app = LateApp(NodeSettings(home=home, data=faces), place, lambda: rules)
    replies = [reply_to(app, number) for number in (1, 2, 3, 3)]
    assert [(reply.status, reply.reason) for reply in replies] == [("trained", None)] * 3 + [("refused", "budget-spent")]
    spent = Ledger(place).epsilon(1e-5, "rdp")
    assert 7.9 < spent <= 8
    told = [record.getMessage() for record in caplog.records]
    assert any("Privacy budget nearly spent: epsilon 7." in line and "more round" in line for line in told)
    assert any("Privacy budget spent" in line and "no further round like the last fits" in line for line in told)
    assert any("refused (budget-spent)" in line for line in told)
    # The owner sees the same afterwards.
    assert "Privacy budget spent" in owner()
    debits = json.loads(owner("--json"))["debits"]
    assert [debit["server"] for debit in debits] == [AUTHORITY] * 4


KILLED_BEFORE_TRAINING = """
import os, signal, sys
from pathlib import Path
from flwr.supercore.task_identity import TaskIdentity
from fl_client import device
from tests.fl_client.test_node_process import AUTHORITY, LateApp, NodeSettings, Policy, context, message, own_ledger
TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id = 1, 1, 1
device.train_locally = lambda *given, **more: os.kill(os.getpid(), signal.SIGKILL)
faces = Path(sys.argv[1])
rules = Policy(require_secure_aggregation=False)
app = LateApp(NodeSettings(home=faces / ".emofl", data=faces), own_ledger(faces / ".emofl", faces, AUTHORITY), lambda: rules)
app(message=message(1), context=context())
"""


@pytest.mark.slow
def test_after_a_kill_between_debit_and_training_the_ledger_shows_the_debit(faces: Path, owner: Owner) -> None:
    (faces / ".emofl").mkdir()
    done = subprocess.run([sys.executable, "-c", KILLED_BEFORE_TRAINING, str(faces)], cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == -9, done.stderr.decode()
    shown = json.loads(owner("--json"))
    (debit,) = shown["debits"]
    assert (debit["run"], debit["round"], debit["steps"], debit["server"]) == ("run-2", 1, 2, AUTHORITY)
    assert shown["epsilon"] > 0
    assert "chain of 1 debit holds" in owner("--verify")


def test_a_change_of_the_rules_holds_from_the_next_message_on(faces: Path) -> None:
    home = faces / ".emofl"
    home.mkdir()
    rules = [Policy(require_secure_aggregation=False)]
    app = LateApp(NodeSettings(home=home, data=faces), own_ledger(home, faces), lambda: rules[0])
    assert reply_to(app, 1).status == "trained"
    rules[0] = Policy(require_secure_aggregation=False, largest_epsilon=1.0)
    assert reply_to(app, 2).reason == "policy"


class World:
    """A clock and a plug."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, 12, 0)
        self.unplugged = False


def test_outside_its_hours_or_unplugged_no_work_is_asked_for_and_each_change_is_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "emofl.client")
    world = World()
    rules = [Policy(hours=("22:00-06:00",))]
    may_work = Hours(lambda: rules[0], True, AUTHORITY, lambda: world.now, lambda: world.unplugged)
    assert [may_work(), may_work()] == [False, False]
    world.now = datetime(2026, 1, 1, 23, 0)
    assert [may_work(), may_work()] == [True, True]
    world.unplugged = True
    assert [may_work(), may_work()] == [False, False]
    assert not may_work()
    world.unplugged = False
    rules[0] = Policy(hours=("00:00-01:00",))
    assert not may_work()
    rules[0] = Policy()
    assert may_work()
    told = [record.getMessage() for record in caplog.records]
    assert told == [
        "It is 12:00, outside of this device's hours (22:00-06:00). No work is asked for.",
        "Asking for work again.",
        "On battery. No work is asked for.",
        "It is 23:00, outside of this device's hours (00:00-01:00). No work is asked for.",
        "Asking for work again.",
    ]


def test_a_power_cord_does_not_matter_to_who_did_not_ask() -> None:
    assert Hours(Policy, False, AUTHORITY, lambda: datetime(2026, 1, 1), lambda: True)()


def test_a_server_that_is_not_allowed_any_more_is_left_at_the_next_look() -> None:
    rules = [Policy(allowed_servers=(AUTHORITY,))]
    may_work = Hours(lambda: rules[0], False, AUTHORITY)
    assert may_work()
    rules[0] = Policy(allowed_servers=("cd" * 32,))
    with pytest.raises(ConfigError, match="allowed_servers"):
        may_work()


def test_a_damaged_rule_while_it_takes_part_is_not_survived() -> None:
    def damaged() -> Policy:
        raise ConfigError("policy.toml: hours is wrong.")

    with pytest.raises(ConfigError):
        Hours(damaged, False, AUTHORITY)()
