"""The server side of `benchmarks.transport`: our SuperLink or Flower's own program, and a ServerApp for either.

Each function runs in a process of its own, or starts one; the orders come through a pipe.
"""

import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.transport_place import PATIENCE, ROUND, Place, Setup, Way, be_quiet
from common.errors import RunError

if TYPE_CHECKING:
    from common.arrays import Arrays


def serve_ours(pipe: Connection, place: Place) -> None:
    """Our SuperLink; tells its port and where its Runtime API is, and a run's token when asked."""
    be_quiet()
    from fl_server.superlink import Identity, SuperLink

    identity = Identity(place.certificate, place.key)
    link = SuperLink(place.folder / "state" / "state.db", identity, "127.0.0.1", 0, secrets.token_hex(32))
    link.start()
    for number, key in enumerate(place.public_keys()):
        link.enrol(key, f"device{number}")
    pipe.send((link.port, link.runtime_address))
    pipe.recv()
    pipe.send(link.start_run().token)
    pipe.recv()
    os._exit(0)


@contextmanager
def serve_flower(place: Place) -> Iterator[tuple["subprocess.Popen[bytes]", int, bytes]]:
    """Flower's own program: its process, its port, and the secret with which it gives out tasks."""
    secret = place.folder / "superexec.secret"
    secret.write_bytes(secrets.token_bytes(32))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    files = {"ssl-ca-certfile": place.ca, "ssl-certfile": place.certificate, "ssl-keyfile": place.key}
    options = {"superexec-auth-secret-file": secret, "host": "127.0.0.1", "port": port, "isolation": "process"}
    command = [str(Path(sys.executable).with_name("flower-superlink")), "--enable-supernode-auth"]
    command += [word for name, value in (files | options).items() for word in (f"--{name}", str(value))]
    with (
        open(place.folder / "superlink.log", "wb") as log,
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=_environment(place)) as process,
    ):
        try:
            _enrol_at_flowers(place, f"127.0.0.1:{port}", process)
            yield process, port, secret.read_bytes()
        finally:
            process.kill()


def _enrol_at_flowers(place: Place, address: str, process: "subprocess.Popen[bytes]") -> None:
    """As Flower's own command line does; anybody may, on a stock SuperLink."""
    import httpx
    from flwr.proto.control_pb2 import RegisterNodeRequest
    from flwr.supercore.control.control_http_client import ControlHttpClient
    from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor

    end, version = time.monotonic() + PATIENCE, RuntimeVersionHttpInterceptor(component_name="flwr-cli")
    with ControlHttpClient.from_server_address(address, False, place.ca.read_bytes(), [version]) as control:
        for number, key in enumerate(place.public_keys()):
            while True:
                try:
                    control.RegisterNode(RegisterNodeRequest(public_key=key, name=f"device{number}"))
                    break
                except httpx.TransportError as error:
                    if time.monotonic() > end or process.poll() is not None:
                        raise RunError("Flower's SuperLink does not start.") from error
                    time.sleep(0.2)


def start_flowers_run(place: Place, address: str, secret: bytes) -> str:
    """A run and the token of its ServerApp, as Flower's command line and its SuperExec get them."""
    import hashlib

    from flwr.cli.build import build_fab_from_files
    from flwr.common.serde import fab_to_proto
    from flwr.proto.control_pb2 import StartRunRequest
    from flwr.proto.runtime_pb2 import AcquireTaskRequest
    from flwr.supercore.constant import TaskType
    from flwr.supercore.control.control_http_client import ControlHttpClient
    from flwr.supercore.fab import Fab
    from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor, SuperExecAuthHttpInterceptor
    from flwr.supercore.runtime import RuntimeHttpClient

    from fl_server.superlink import bundle_files

    ca, version = place.ca.read_bytes(), RuntimeVersionHttpInterceptor(component_name="flwr-cli")
    bundle = build_fab_from_files(bundle_files())[0]
    with ControlHttpClient.from_server_address(address, False, ca, [version]) as control:
        control.StartRun(StartRunRequest(fab=fab_to_proto(Fab(hashlib.sha256(bundle).hexdigest(), bundle, {}))))
    guards: list[Any] = [
        RuntimeVersionHttpInterceptor(component_name="SuperExec"),
        SuperExecAuthHttpInterceptor(master_secret=secret, protected_methods=frozenset({"/flwr.proto.Runtime/AcquireTask"})),
    ]
    with RuntimeHttpClient.from_server_address(address, False, ca, guards) as runtime:
        given = runtime.AcquireTask(AcquireTaskRequest(supported_task_types=[TaskType.SERVER_APP]))
    if not given.token:
        raise RunError("Flower's SuperLink gives out no task; flwr 1.41.0 is needed.")
    return str(given.token)


def average(pipe: Connection, way: Way, place: Place) -> None:
    """The ServerApp's process: waits for address and token, then for the word, runs the rounds, tells the seconds of each."""
    be_quiet()
    from flwr.common.serde import run_from_proto
    from flwr.proto.runtime_pb2 import PullTaskInputRequest
    from flwr.supercore.heartbeat import HeartbeatSender, make_task_heartbeat_fn_http
    from flwr.supercore.task_identity import TaskIdentity
    from flwr.superlink.grid import HttpGrid

    inside = way == "emofl"
    rounds = _rounds_of_ours if inside else _rounds_of_flower
    for module in ("fl_server.exchange", "fl_server.strategy") if inside else ("flwr.serverapp.strategy",):
        import_module(module)
    model = place.setup.model(0)
    pipe.send("ready")
    runtime, token = pipe.recv()
    grid = HttpGrid(runtime, inside, None if inside else place.ca.read_bytes(), token=token)
    client = grid._runtime_client
    heartbeat = HeartbeatSender(make_task_heartbeat_fn_http(client))
    heartbeat.start()
    given = client.PullTaskInput(PullTaskInputRequest())
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = given.task_id, given.run.run_id, given.context.node_id
    grid.set_run(run_from_proto(given.run))
    pipe.send("connected")
    pipe.recv()
    pipe.send(rounds(grid, place.setup, model))
    pipe.recv()
    os._exit(0)


def _rounds_of_ours(grid: Any, setup: Setup, model: "Arrays") -> list[float]:
    """As `fl_server.rounds` asks and adds up, every half second like the deployed server, with sums that are not secure."""
    from flwr.app import Array, ArrayRecord, ConfigRecord

    from common.arrays import pack
    from common.config import RunConfig, UploadConfig
    from common.messages import TrainRequest, encode_request
    from fl_server.aggregate import UpdateShape
    from fl_server.exchange import Exchange
    from fl_server.strategy import make_strategy

    config, seconds = RunConfig(upload=UploadConfig(secure=False)), []
    strategy = make_strategy(config.server, 0.0)
    strategy.shape = UpdateShape(setup.shapes, config.server.max_update_norm)
    exchange, nodes = Exchange(grid, poll=0.5), sorted(grid.get_node_ids())
    for number in range(1, setup.rounds + 1):
        began = time.monotonic()
        request = TrainRequest(
            run="benchmark",
            round=number,
            rounds=setup.rounds,
            participations=1,
            model=config.model,
            train=config.train,
            privacy=config.privacy,
            upload=config.upload,
        )
        weights = pack(model)
        content, digest = encode_request(request, weights), request.digest(weights)
        strategy.prepare(nodes, content, model, "benchmark", config.upload, _nobody_listens, _no_sum, digest)
        before = ArrayRecord({name: Array(value) for name, value in model.items()})
        after, _ = strategy.aggregate_train(
            number, exchange.ask(strategy.configure_train(number, before, ConfigRecord(), grid), ROUND)
        )
        if after is None or strategy.tally.accepted < setup.devices:
            raise RunError(f"Round {number}: {strategy.tally}.")
        model = {name: array.numpy() for name, array in after.items()}
        seconds.append(time.monotonic() - began)
    return seconds


def _nobody_listens(tally: Any) -> None:
    pass


def _no_sum(ready: Any) -> Any:
    raise RunError("Sums are not secure here.")


def _rounds_of_flower(grid: Any, setup: Setup, model: "Arrays") -> list[float]:
    """Flower's FedAvg as it stands; only the clock is ours."""
    from flwr.app import Array, ArrayRecord
    from flwr.serverapp.strategy import FedAvg

    began, seconds = [0.0], []

    class Clocked(FedAvg):
        def configure_train(self, *arguments: Any, **options: Any) -> Any:
            began[0] = time.monotonic()
            return super().configure_train(*arguments, **options)

        def aggregate_train(self, server_round: int, replies: Any) -> Any:
            found = super().aggregate_train(server_round, replies)
            seconds.append(time.monotonic() - began[0])
            return found

    count = setup.devices
    strategy = Clocked(fraction_train=1.0, fraction_evaluate=0.0, min_train_nodes=count, min_available_nodes=count)
    strategy.start(grid, ArrayRecord({name: Array(value) for name, value in model.items()}), num_rounds=setup.rounds)
    return seconds


def _environment(place: Place) -> dict[str, str]:
    quiet = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1", "FLWR_HOME": str(place.folder / "flwr")}
    return dict(os.environ) | quiet
