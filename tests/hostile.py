"""A server that asks for what it may not have, for integration tests: `from tests.hostile import main; main()`, with `start`.

It is the real server, and its devices are real; only its bundle (FAB) and its ServerApp are replaced. The bundle has code that
writes the file in EMOFL_TRACE wherever it is imported. The ServerApp asks one device for one thing after the other and writes
what it was answered, one JSON object a line, to the file in EMOFL_ANSWERS.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.serverapp import Grid

from common.arrays import pack
from common.config import ClientLevelRequest
from common.errors import ReplyError
from common.identity import SigningKey
from common.messages import SumHeader, TrainReply, TrainRequest, decode_sum, encode_request, encode_sum
from common.parameters import read_parameters
from common.secagg.client import Client, Limits
from common.secagg.roster import Roster
from common.secagg.server import Server
from common.secagg.wire import Advertisement, Terms
from common.sum_encoding import sum_encoding
from fl_server import run_supervisor, serverapp_process, service_process, superlink
from fl_server.rounds import Rounds
from fl_server.superlink import Started
from fl_server.task import Task
from models.subset import select_trainable

TRACE, ANSWERS, MODULE = "EMOFL_TRACE", "EMOFL_ANSWERS", "hostile_code"
SERVERAPP = "from tests.hostile import serverapp; serverapp()"
OWN_COHORT = 5
"""What the device's owner demands as the smallest cohort."""


@dataclass(frozen=True)
class Answer:
    """What the device answered to one demand.

    Attributes:
        demand: what was asked for.
        status: `trained`, `refused`, `step` for a step of a sum that was taken, or `error`.
        reason: the code of a refusal, or an error's type.
        records: names of what the message carried.
        size: bytes of arrays in it.
    """

    demand: str
    status: str
    reason: str
    records: tuple[str, ...]
    size: int


def main() -> None:
    """`fl-server` with another bundle and another ServerApp."""
    from fl_server.cli import main as command_line

    setattr(superlink, "bundle_files", bundle)  # noqa: B010
    setattr(run_supervisor.ServerAppProcess, "_spawn", spawn)  # noqa: B010
    setattr(service_process, "become", become)  # noqa: B010
    command_line()


def bundle() -> dict[str, bytes]:
    """A bundle whose ClientApp is code of the server's."""
    trace = os.environ[TRACE]
    code = f"open({trace!r}, 'w').write('it ran')\nfrom flwr.clientapp import ClientApp\napp = ClientApp()\n"
    project = superlink.PYPROJECT.replace(b"fl_client.app:app", f"{MODULE}:app".encode())
    return {"pyproject.toml": project, f"{MODULE}.py": code.encode()}


def become(plan: Any) -> None:
    """As the real one, in this process, whose parts were replaced."""
    text = json.dumps(asdict(plan) | {"run": plan.run.path}, default=str)
    os.environ[service_process.PLAN] = text
    service_process.main()


def spawn(self: run_supervisor.ServerAppProcess, started: Started) -> subprocess.Popen[bytes]:
    """The ServerApp below, with the task of the real one."""
    task = Task(started.token, self.link.runtime_address, self.folder, self.run, os.getpid())
    with open(self.log_file, "ab") as output:
        environment = dict(os.environ) | task.environment()
        return subprocess.Popen([sys.executable, "-c", SERVERAPP], env=environment, stdout=output, stderr=output)


def serverapp() -> None:
    """The ServerApp's process."""
    setattr(serverapp_process, "build_server_app", demanding_app)  # noqa: B010
    serverapp_process.main()


def demanding_app(rounds: Rounds, weights: Any) -> Callable[..., None]:
    """In place of the rounds: all demands, then nothing more."""

    def app(grid: Grid, context: Context) -> None:
        while not (nodes := list(grid.get_node_ids())):
            time.sleep(0.2)
        with open(os.environ[ANSWERS], "a") as file:
            for answer in Demands(rounds, grid, nodes[0]).all():
                file.write(json.dumps(asdict(answer)) + "\n")
                file.flush()
        while not rounds.stopped():  # the run goes on, and its bundle is still offered
            time.sleep(0.2)

    return app


class Demands:
    """Asks one device for everything that it should refuse. Each demand is a round of its own, so that logs tell them apart."""

    def __init__(self, rounds: Rounds, grid: Grid, node: int) -> None:
        model = rounds.initial_model()
        self._rounds, self._grid, self._node, self._number, self._identity = rounds, grid, node, 0, ""
        self._weights = pack(read_parameters(model))
        self._length = sum(p.numel() for p in select_trainable(model, rounds.config.model.trainable).values())
        self._keys = [SigningKey.generate() for _ in range(OWN_COHORT - 1)]
        """Devices that the server made up."""

    def all(self) -> Iterator[Answer]:
        """One demand after the other: first those that are refused before anything is spent."""
        for kind in ("evaluate", "query", "train.update"):
            yield self._send(f"task type {kind}", self._honest(), kind)
        yield self._send("a larger epsilon", self._wish(privacy={"epsilon": 50.0}))
        yield self._send("a larger delta", self._wish(privacy={"delta": 1e-3}))
        yield self._send("no noise", self._wish(privacy={"private": False}))
        yield self._send("a noise of its own choice", self._honest(), alter=self._lower_noise)
        yield self._send("less noise on counts", self._wish(evaluation_noise=0.05))
        yield self._send("the update in the clear", self._wish(upload={"secure": False}))
        yield self._send("endless work", self._wish(train={"local_steps": 1_000_000}))
        yield self._send("a choice of emotions", self._wish(model={"classes": ("happiness", "anger")}))
        yield self._send("records of another kind", None)
        yield from self._in_a_sum("a smaller cohort", lambda request: self._terms(request, OWN_COHORT - 1))
        yield from self._in_a_sum("a cohort without the device", lambda request: self._terms(request, OWN_COHORT, own=False))
        yield from self._in_a_sum("other weights than the others'", lambda request: self._terms(request, OWN_COHORT, b"other"))
        yield from self._shrinking()
        promise = ClientLevelRequest(
            mode="distributed", epsilon=1.0, delta=1e-5, clip=1.0, bits=20, noise_multiplier=0.05, rounds=20
        )
        noisy = {"run": "a-noisy-run", "client_level": promise}
        yield from self._in_a_sum("less noise than promised", lambda request: self._terms(request, OWN_COHORT), **noisy)
        weaker = promise.model_copy(update={"epsilon": 100.0})
        yield self._send("another promise within the run", self._wish(run="a-noisy-run", client_level=weaker))
        for demand, run in (("all of the budget at once", "a-greedy-run"), ("all of the budget once more", "another-greedy-run")):
            yield self._send(demand, self._wish(run=run, rounds=1, participations=1))

    def _honest(self) -> TrainRequest:
        self._number += 1
        return self._rounds._request(self._number, 20, None, None)

    def _wish(self, **changes: Any) -> TrainRequest:
        """The run's request with other values, which the server's own configuration might refuse."""
        request = self._honest()
        return request.model_copy(
            update={
                name: getattr(request, name).model_copy(update=value) if isinstance(value, dict) else value
                for name, value in changes.items()
            }
        )

    def _send(
        self,
        demand: str,
        request: TrainRequest | None,
        kind: str = "train",
        alter: Callable[[RecordDict], None] = lambda content: None,
    ) -> Answer:
        content = RecordDict({"code": ConfigRecord({"python": "1 + 1"})})
        if request is not None:
            content = encode_request(request, self._weights)
        alter(content)
        return self._read(demand, self._exchange(content, kind))

    @staticmethod
    def _lower_noise(content: RecordDict) -> None:
        wish = json.loads(str(content["request"]["json"]))
        wish["privacy"]["noise_multiplier"] = 0.01
        content["request"] = ConfigRecord({"json": json.dumps(wish)})

    def _exchange(self, content: RecordDict, kind: str = "train") -> Message:
        sent = list(self._grid.push_messages([Message(content, dst_node_id=self._node, message_type=kind)]))
        while not (found := list(self._grid.pull_messages(sent))):
            time.sleep(0.1)
        return found[0]

    @staticmethod
    def _read(demand: str, message: Message) -> Answer:
        if message.has_error():
            return Answer(demand, "error", message.error.reason or "", (), 0)
        content = message.content
        size = sum(len(array.data) for record in content.array_records.values() for array in record.values())
        if "sum" in content:
            reason = SumHeader.model_validate_json(str(content["sum"]["json"])).reason
            return Answer(demand, "refused" if reason else "step", reason or "", tuple(sorted(content)), size)
        reply = TrainReply.model_validate_json(str(content["reply"]["json"]))
        return Answer(demand, reply.status, reply.reason or "", tuple(sorted(content)), size)

    def _train(self, request: TrainRequest) -> str:
        """The device trains for a round; its identity in the sum."""
        message = self._exchange(encode_request(request, self._weights))
        answer = self._read("an honest round", message)
        if answer.status != "trained":
            raise ReplyError(f"The device did not train: {answer}.")
        return str(TrainReply.model_validate_json(str(message.content["reply"]["json"])).identity)

    def _terms(self, request: TrainRequest, size: int, weights: bytes | None = None, own: bool = True) -> Terms:
        """An invitation to a sum of this device and of devices that the server made up."""
        digest = request.digest(self._weights if weights is None else weights)
        encoding = sum_encoding(self._length, request.upload, request.client_level)
        cohort = [key.public.raw for key in self._keys][: size - own] + [bytes.fromhex(self._identity)] * own
        if len(cohort) < size:
            cohort.append(SigningKey.generate().public.raw)
        width = encoding.width(len(cohort))
        return Terms(request.run, request.round, encoding.vector_length, digest, tuple(sorted(cohort)), width)

    def _in_a_sum(self, demand: str, terms: Callable[[TrainRequest], Terms], **changes: Any) -> Iterator[Answer]:
        request = self._wish(**changes)
        self._identity = self._train(request)
        yield self._step(demand, request, "advertise", terms(request).encode())[0]

    def _step(self, demand: str, request: TrainRequest, step: Any, content: bytes) -> tuple[Answer, bytes]:
        header = SumHeader(run=request.run, round=request.round, step=step)
        message = self._exchange(encode_sum(header, content))
        answer = self._read(demand, message)
        return answer, decode_sum(message.content)[1]

    def _shrinking(self) -> Iterator[Answer]:
        """A cohort that is large enough when it is invited, and of which one member is then said to have gone."""
        request = self._wish()
        self._identity = self._train(request)
        terms = self._terms(request, OWN_COHORT)
        server = Server(terms)
        answer, advertised = self._step("a cohort that is large enough", request, "advertise", terms.encode())
        yield answer
        server.add_advertisement(Advertisement.decode(advertised))
        for key in self._keys[1:]:
            server.add_advertisement(Client(terms, key, Roster(frozenset(terms.cohort)), Limits()).advertise())
        yield self._step("a cohort that shrinks", request, "share", server.close_advertising().encode())[0]
