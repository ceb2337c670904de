import json
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from safetensors.numpy import save

from common.arrays import Shapes
from common.canonical import encode, sha256
from common.config import RunConfig, ServerConfig, UploadConfig, make_config
from common.errors import RunError
from common.messages import SAFETENSORS, TrainReply, decode_request, encode_reply
from fl_server.checkpoint import Checkpoint, config_digests
from fl_server.cohort import expected_participations
from fl_server.rounds import CHECKPOINT, METRICS, Accepted, Observers, Rounds
from tests.fl_server.grids import Answer, ScriptedGrid

HEAD = {"classifier.1.weight": (7, 1280), "classifier.1.bias": (7,)}


def config(**server: object) -> RunConfig:
    return make_config(
        {
            "model": {"name": "mobilenet_v2_025", "stem_stride": 2, "trainable": "head"},
            "server": {"rounds": 3, "round_timeout": 0.2} | server,
            "upload": {"secure": False},
            "train": {"proximal_mu": 0.1 if server.get("strategy") == "fedprox" else 0.0},
        }
    )


def moved_by(value: float) -> Answer:
    """A device whose update is `value` everywhere."""

    def answer(message: Message) -> Message:
        request, _ = decode_request(message.content)
        update = {name: np.full(shape, value, np.float32) for name, shape in HEAD.items()}
        return Message(encode_reply(TrainReply(run=request.run, round=request.round, status="trained"), update), reply_to=message)

    return answer


def changed(change: Callable[[RecordDict], RecordDict]) -> Answer:
    def answer(message: Message) -> Message:
        return Message(change(moved_by(9.0)(message).content), reply_to=message)

    return answer


def run(
    folder: Path, nodes: dict[int, Answer], settings: RunConfig | None = None, **more: Any
) -> tuple[Checkpoint, ScriptedGrid]:
    grid = ScriptedGrid(nodes)
    folder.mkdir(exist_ok=True)
    rounds = Rounds(settings or config(), "run-1", folder, poll=0.001, **more)
    return rounds.execute(grid), grid


def bias(state: Checkpoint) -> np.ndarray:
    return state.weights["classifier.1.bias"]


def test_each_round_adds_the_mean_update_and_keeps_the_rest_of_the_model(tmp_path: Path) -> None:
    first = Rounds(config(), "run-1", tmp_path).open_checkpoint().weights
    state, _ = run(tmp_path, {1: moved_by(0.1), 2: moved_by(0.3)})
    assert np.allclose(bias(state), first["classifier.1.bias"] + 3 * 0.2, atol=1e-6)
    frozen = [name for name in first if name not in HEAD]
    assert frozen
    assert all(np.array_equal(first[name], state.weights[name]) for name in frozen)


def no_update(content: RecordDict) -> RecordDict:
    del content["update"]
    return content


def with_bytes(content: bytes, kind: str = SAFETENSORS) -> Callable[[RecordDict], RecordDict]:
    def change(record: RecordDict) -> RecordDict:
        record["update"] = ArrayRecord({"content": Array("uint8", (len(content),), kind, content)})
        return record

    return change


def with_update(arrays: dict[str, np.ndarray]) -> Callable[[RecordDict], RecordDict]:
    return with_bytes(save(arrays))


def filled(value: float = 1.0, dtype: type = np.float32) -> dict[str, np.ndarray]:
    return {name: np.full(shape, value, dtype) for name, shape in HEAD.items()}


def as_arrays(content: RecordDict) -> RecordDict:
    content["update"] = ArrayRecord({name: Array(value) for name, value in filled().items()})
    return content


def header(values: str, body: bytes = b"") -> bytes:
    return len(values).to_bytes(8, "little") + values.encode() + body


def said(**fields: object) -> Callable[[RecordDict], RecordDict]:
    def change(content: RecordDict) -> RecordDict:
        known = json.loads(str(content["reply"]["json"]))
        content["reply"] = ConfigRecord({"json": json.dumps(known | fields)})
        return content

    return change


def surplus(content: RecordDict) -> RecordDict:
    content["metrics"] = ConfigRecord({"num-examples": 1_000_000})
    return content


BAD = {
    "no update": no_update,
    "nan": with_update(filled(np.nan)),
    "infinite": with_update(filled(np.inf)),
    "too large": with_update(filled(1e6)),
    "float64": with_update(filled(1.0, np.float64)),
    "missing name": with_update({"classifier.1.bias": np.zeros(7, np.float32)}),
    "extra name": with_update(filled() | {"features.0.0.weight": np.zeros(3, np.float32)}),
    "wrong shape": with_update(filled() | {"classifier.1.bias": np.zeros((7, 1), np.float32)}),
    "more bytes": with_bytes(save(filled()) + bytes(2**20)),
    "more values": with_update(filled() | {"classifier.1.bias": np.zeros(10**6, np.float32)}),
    "pickle": with_bytes(pickle.dumps(filled())),
    "another kind": with_bytes(save(filled()), "numpy.ndarray"),
    "an array each": as_arrays,
    "huge header": with_bytes((2**62).to_bytes(8, "little") + bytes(100)),
    "absurd shape": with_bytes(
        header(f'{{"classifier.1.bias":{{"dtype":"F32","shape":[{2**62}],"data_offsets":[0,28]}}}}', bytes(28))
    ),
    "cut short": with_bytes(save(filled())[:-4]),
    "empty": with_bytes(b""),
    "another round": said(round=99),
    "another run": said(run="other"),
    "unknown field": said(examples=100),
    "unknown version": said(version=2),
    "surplus record": surplus,
    "nothing": lambda content: RecordDict(),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_malformed_reply_is_left_out_and_never_fatal(tmp_path: Path, kind: str) -> None:
    first = Rounds(config(), "run-1", tmp_path).open_checkpoint().weights
    state, _ = run(tmp_path, {1: moved_by(0.1), 2: changed(BAD[kind]), 3: moved_by(0.1)})
    assert np.allclose(bias(state), first["classifier.1.bias"] + 3 * 0.1, atol=1e-6)
    assert [(r["accepted"], r["left_out"]) for r in state.history[1:]] == [(2, {"malformed": 1})] * 3


def explode(message: Message) -> Message:
    raise RuntimeError


def refuse(message: Message) -> Message:
    request, _ = decode_request(message.content)
    reply = TrainReply(run=request.run, round=request.round, status="refused", reason="budget-spent")
    return Message(encode_reply(reply), reply_to=message)


def test_errors_refusals_and_silence_are_counted_and_the_run_goes_on(tmp_path: Path) -> None:
    nodes = {1: moved_by(0.1), 2: explode, 3: refuse, 4: lambda message: None, 5: moved_by(0.1)}
    state, _ = run(tmp_path, nodes, config(rounds=1))
    assert state.history[1]["left_out"] == {"budget-spent": 1, "error": 1, "no-answer": 1}
    assert state.history[1]["accepted"] == 2


def test_a_round_with_too_few_updates_leaves_the_model_alone_and_publishes_nothing(tmp_path: Path) -> None:
    published: list[int] = []
    observers = Observers(publish=lambda accepted: published.append(accepted.round))
    first = Rounds(config(), "run-1", tmp_path).open_checkpoint().weights
    state, _ = run(tmp_path, {1: moved_by(0.1), 2: refuse}, observers=observers)
    assert np.array_equal(bias(state), first["classifier.1.bias"])
    assert published == [0]
    assert len(state.history) == 4


def test_a_cohort_is_a_sample_that_a_seed_repeats_and_rounds_change(tmp_path: Path) -> None:
    nodes = {number: moved_by(0.1) for number in range(20)}
    grids = [run(tmp_path / name, nodes, config(cohort=5))[1] for name in ("a", "b")]
    assert grids[0].asked == grids[1].asked
    assert all(len(set(asked)) == 5 for asked in grids[0].asked)
    assert len({tuple(asked) for asked in grids[0].asked}) == 3


def test_secret_sampling_does_not_follow_the_seed(tmp_path: Path) -> None:
    nodes = {number: moved_by(0.1) for number in range(40)}
    grids = [run(tmp_path / name, nodes, config(cohort=10), secret_sampling=True)[1] for name in ("a", "b")]
    assert grids[0].asked != grids[1].asked


def test_participations_are_all_rounds_for_a_full_cohort_and_a_bound_for_a_sample() -> None:
    assert expected_participations(20, 10, 10) == 20
    assert expected_participations(100, 10, 100) == 16
    assert expected_participations(1, 1, 1000) == 1


def test_each_round_leaves_a_line_in_metrics_and_a_checkpoint(tmp_path: Path) -> None:
    state, _ = run(tmp_path, {1: moved_by(0.1), 2: moved_by(0.1)}, observers=Observers(annotate=lambda n: {"epsilon": n / 2}))
    lines = [json.loads(line) for line in (tmp_path / METRICS).read_text().splitlines()]
    assert [(line["round"], line["epsilon"]) for line in lines] == [(0, 0), (1, 0.5), (2, 1.0), (3, 1.5)]
    assert Checkpoint.load(tmp_path / CHECKPOINT).round == state.round == 3


def five_rounds(folder: Path, strategy: str, **more: Any) -> tuple[Checkpoint, ScriptedGrid]:
    """The run that killed_run.py kills: whole, killed and resumed, it is the same one."""
    return run(folder, {1: moved_by(0.1), 2: moved_by(0.25)}, config(strategy=strategy, rounds=5), **more)


STRATEGIES = ["fedavg", "fedprox", "fedavgm", "fedadam"]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_killed_run_resumes_to_the_very_same_model(tmp_path: Path, strategy: str) -> None:
    whole, _ = five_rounds(tmp_path / "whole", strategy)
    killed = tmp_path / "killed"
    program = [sys.executable, "-m", "tests.fl_server.killed_run", str(killed), strategy]
    assert subprocess.run(program, timeout=120).returncode == -signal.SIGKILL
    assert Checkpoint.load(killed / CHECKPOINT).round == 2
    resumed, grid = five_rounds(killed, strategy)
    assert len(grid.asked) == 3
    assert all(np.array_equal(whole.weights[name], resumed.weights[name]) for name in whole.weights)
    assert len(resumed.history) == 6


def test_server_momentum_goes_further_than_averaging(tmp_path: Path) -> None:
    nodes = {1: moved_by(0.1), 2: moved_by(0.1)}
    plain, heavy = (run(tmp_path / name, nodes, config(strategy=name))[0] for name in ("fedavg", "fedavgm"))
    start = Rounds(config(), "run-1", tmp_path).open_checkpoint().weights["classifier.1.bias"]
    assert np.allclose(bias(plain) - start, 0.3, atol=1e-6)
    assert np.allclose(bias(heavy) - start, 0.1 + 0.19 + 0.271, atol=1e-5)


def test_fedprox_tells_the_devices_its_pull_and_the_others_do_not(tmp_path: Path) -> None:
    seen: dict[str, float] = {}

    def listen(name: str) -> Answer:
        def answer(message: Message) -> Message:
            seen[name] = decode_request(message.content)[0].train.proximal_mu
            return moved_by(0.1)(message)

        return answer

    for name in ("fedavg", "fedprox"):
        run(tmp_path / name, {1: listen(name), 2: moved_by(0.1)}, config(strategy=name, rounds=1))
    assert seen == {"fedavg": 0.0, "fedprox": 0.1}


def test_a_checkpoint_of_another_configuration_is_not_gone_on_with(tmp_path: Path) -> None:
    run(tmp_path, {1: moved_by(0.1), 2: moved_by(0.1)}, config(rounds=1))
    with pytest.raises(RunError, match="another configuration"):
        run(tmp_path, {1: moved_by(0.1), 2: moved_by(0.1)}, config(rounds=2))


class LaterServer(ServerConfig):
    """Of a version that has one more setting."""

    novelty: int = 3


class LaterConfig(RunConfig):
    server: LaterServer = LaterServer()
    another: str = "as before"


def test_a_run_goes_on_after_an_upgrade_that_brings_new_settings(tmp_path: Path) -> None:
    nodes = {1: moved_by(0.1), 2: moved_by(0.1)}
    run(tmp_path, nodes, config(rounds=2))
    stored = config(rounds=2).model_dump(mode="json")

    def later(**server: object) -> RunConfig:
        return LaterConfig.model_validate(stored | {"server": LaterServer.model_validate(stored["server"] | server)})

    state, grid = run(tmp_path, nodes, later())
    assert (state.round, grid.asked) == (2, [])
    with pytest.raises(RunError, match="another configuration"):
        run(tmp_path, nodes, later(novelty=4))


def test_a_run_goes_on_after_an_upgrade_that_changes_a_default(tmp_path: Path) -> None:
    class OtherServer(ServerConfig):
        rounds: int = 2

    class OtherConfig(RunConfig):
        server: OtherServer = OtherServer()

    nodes = {1: moved_by(0.1), 2: moved_by(0.1)}
    run(tmp_path, nodes, config(rounds=2))
    later = OtherConfig.model_validate(config(rounds=2).model_dump(mode="json"))
    assert config_digests(later)[0] != config_digests(config(rounds=2))[0]
    state, grid = run(tmp_path, nodes, later)
    assert (state.round, grid.asked) == (2, [])


def test_an_older_checkpoint_that_has_the_digest_of_all_settings_alone_is_gone_on_with(tmp_path: Path) -> None:
    settings, nodes = config(rounds=1), {1: moved_by(0.1), 2: moved_by(0.1)}
    state, _ = run(tmp_path, nodes, settings)
    state.config_digests = config_digests(settings)[1:]
    state.save(tmp_path / CHECKPOINT)
    again, grid = run(tmp_path, nodes, settings)
    assert (again.round, grid.asked, again.config_digests) == (1, [], config_digests(settings))


def test_what_came_after_that_form_of_digest_is_not_in_it_while_it_is_as_by_default() -> None:
    settings = config(rounds=1)
    whole = settings.model_dump(mode="json")
    del whole["server"]["keep_models"]
    assert config_digests(settings)[1] == sha256(encode(whole))
    assert config_digests(config(rounds=1, keep_models=3))[1] != sha256(encode(whole))


@pytest.mark.parametrize("damage", [b"", b"{}", b"\x08\x00\x00\x00\x00\x00\x00\x00{}      "])
def test_a_damaged_checkpoint_is_one_sentence(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / CHECKPOINT).write_bytes(damage)
    with pytest.raises(RunError, match="damaged"):
        Checkpoint.load(tmp_path / CHECKPOINT)


def test_a_resumed_run_publishes_with_the_histogram_of_before(tmp_path: Path) -> None:
    nodes, counts = {1: moved_by(0.1), 2: moved_by(0.1)}, {"fear": 3.5}
    public: dict[int, dict[str, float] | None] = {}

    def crash(accepted: Accepted) -> None:
        if accepted.round == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, nodes, observers=Observers(publish=crash))
    kept = Checkpoint.load(tmp_path / CHECKPOINT)
    kept.history[1]["class_counts"] = counts
    kept.save(tmp_path / CHECKPOINT)
    keep = Observers(publish=lambda accepted: public.update({accepted.round: accepted.histogram}), published=lambda: 1)
    run(tmp_path, nodes, observers=keep)
    assert public == {2: counts, 3: counts}


def test_replies_are_dropped_one_by_one_so_memory_does_not_grow_with_the_cohort(tmp_path: Path) -> None:
    alive: list[int] = []
    pulls: list[int] = []

    class OneByOne(ScriptedGrid):
        def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
            pulls.append(len(list(message_ids)))
            return super().pull_messages(message_ids)

    class Counted(dict[str, Any]):
        def __del__(self) -> None:
            alive.remove(id(self))

    import fl_server.strategy as module

    original, most = module.decode_reply, 0

    def counting(content: RecordDict, shapes: Shapes, upload: UploadConfig) -> Any:
        nonlocal most
        reply, arrays = original(content, shapes, upload)
        held = Counted(arrays)
        alive.append(id(held))
        most = max(most, len(alive))
        return reply, held

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "decode_reply", counting)
        grid = OneByOne({number: moved_by(0.1) for number in range(30)})
        Rounds(config(rounds=1), "run-1", tmp_path, poll=0.001).execute(grid)
    assert most <= 2
    assert set(pulls) == {1}


def test_a_model_kept_and_not_published_before_a_crash_is_published_on_resuming(tmp_path: Path) -> None:
    nodes = {1: moved_by(0.1), 2: moved_by(0.1)}
    public: list[int] = []

    def crash(accepted: Accepted) -> None:
        if accepted.round == 2:
            raise KeyboardInterrupt
        public.append(accepted.round)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, nodes, observers=Observers(publish=crash))
    assert public == [0, 1]
    observers = Observers(publish=lambda accepted: public.append(accepted.round), published=lambda: public[-1])
    run(tmp_path, nodes, observers=observers)
    assert public == [0, 1, 2, 3]
    run(tmp_path, nodes, observers=observers)
    assert public == [0, 1, 2, 3]
