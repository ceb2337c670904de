"""The ServerApp as a process of its own: `python -m fl_server.serverapp_process`, started by `fl_server.service` alone.

Its task's token comes through the environment and is removed from it at once. It runs the ServerApp that simulations run.
"""

import logging
import os
import signal
import sys
import time
from types import FrameType
from typing import NoReturn

from flwr.common.constant import SubStatus
from flwr.common.serde import context_from_proto, run_from_proto
from flwr.proto.runtime_pb2 import PullTaskInputRequest, PushTaskOutputRequest
from flwr.serverapp import Grid
from flwr.supercore.heartbeat import HeartbeatSender, make_task_heartbeat_fn_http
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.grid import HttpGrid

from common.arrays import Arrays
from common.errors import EmoflError, RunError
from common.files import no_room
from common.flower_log import log_to
from common.identity import SigningKey
from common.processes import end_with_parent
from fl_server.app import build_server_app
from fl_server.checkpoint import Checkpoint, lacks_room
from fl_server.hub import Registry
from fl_server.publisher import Publisher
from fl_server.rounds import CHECKPOINT, Accepted, Observers, Rounds
from fl_server.run_folder import RunFolder
from fl_server.task import CRASHED, STOPPED, TOKEN, Task
from models.faces.faceset import FaceSet
from models.faces.source import open_faces
from models.starting_point import pinned_start

log = logging.getLogger("emofl.server")


class _Stop:
    """Whether somebody asked this process to end."""

    def __init__(self) -> None:
        self._asked, self._parent = False, os.getppid()

    def __call__(self) -> bool:
        return self._asked

    def ask(self, number: int, frame: FrameType | None) -> None:
        """Signal handler: the rounds end at their next look; at once if the server is gone, or at the second signal."""
        if self._asked or os.getppid() != self._parent:
            os._exit(STOPPED)
        self._asked = True


class PatientRounds(Rounds):
    """Rounds that wait while the server's disk is full, before they ask devices and with what these have answered.

    A round that ended for want of room would cost every device's privacy budget a second time.
    """

    def execute(self, grid: Grid, weights: Arrays | None = None) -> Checkpoint:
        """As `Rounds.execute`.

        Raises:
            RunError: also where it was stopped while it waited.
        """
        self._wait()
        return super().execute(grid, weights)

    def _keep(self, state: Checkpoint, accepted: Accepted | None) -> None:
        while True:
            try:
                super()._keep(state, accepted)
                break
            except (OSError, RunError) as error:
                if not no_room(error):
                    raise
                log.warning("round %d is kept in memory: %s", state.round, error)
            self._wait(at_least=1.0)
            if accepted is not None and self.observers.published() == accepted.round:
                accepted = None
        if state.round < self.config.server.rounds:
            self._wait()

    def _wait(self, at_least: float = 0.0) -> None:
        end, said = time.monotonic() + at_least, False
        while (full := lacks_room(self.folder / CHECKPOINT)) or time.monotonic() < end:
            if self.stopped():
                raise RunError("The run was stopped while it waited for room on the disk.")
            if full and not said:
                log.warning(
                    "There is too little room on the disk of %s; the next round waits. "
                    "fl-server models prune removes old models.",
                    self.folder,
                )
                said = True
            time.sleep(self.poll)


def build_rounds(task: Task, stop: _Stop) -> tuple[Rounds, Publisher]:
    """The rounds of the task's run, and what publishes their models."""
    config, run = task.run.config, task.run.name
    start = pinned_start(config, task.run.path, begun=(task.run.path / CHECKPOINT).exists())
    rounds = PatientRounds(config, run, task.run.path, _public_faces(task.run), secret_sampling=True, poll=0.5, stopped=stop)
    registry = Registry(task.folder.registry, SigningKey.load_or_create(task.folder.publisher_key), config.server.keep_models)
    return rounds, Publisher(registry, config, run, rounds.initial_model(), start=start)


def _public_faces(run: RunFolder) -> FaceSet | None:
    """The public set that models are evaluated on, if the configuration names one in data.path."""
    config = run.config
    if config.data.path is None:
        return None
    faces, sentence = open_faces(config.data.path, labels=config.data.labels, usage="PublicTest", classes=config.model.classes)
    log.info("Evaluation: %s", sentence)
    return faces


def perform(task: Task, stop: _Stop) -> None:
    """Run the ServerApp to its end.

    Raises:
        EmoflError: the run cannot go on, or was stopped.
    """
    grid = HttpGrid(task.runtime, True, None, token=task.token)
    client = grid._runtime_client
    heartbeat = HeartbeatSender(make_task_heartbeat_fn_http(client))
    heartbeat.start()
    status, detail = SubStatus.FAILED, "failed"
    try:
        given = client.PullTaskInput(PullTaskInputRequest())
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = given.task_id, given.run.run_id, given.context.node_id
        grid.set_run(run_from_proto(given.run))
        rounds, publisher = build_rounds(task, stop)
        rounds.observers = Observers(publish=publisher.publish, published=publisher.published)
        app = build_server_app(rounds, publisher.start.weights)
        app(grid=grid, context=context_from_proto(given.context))
        status, detail = SubStatus.COMPLETED, ""
    finally:
        heartbeat.stop()
        grid._retry_invoker.max_tries = 1
        try:
            client.PushTaskOutput(PushTaskOutputRequest(sub_status=status, details=detail))
        except Exception:
            log.debug("the end of the run was not told", exc_info=True)
        grid.close()


def main() -> NoReturn:
    """Entry point; the exit code is 0 when all rounds are done, STOPPED, CRASHED, or that of an `EmoflError`."""
    log_to(sys.stderr, flower=logging.ERROR)
    stop = _Stop()
    signal.signal(signal.SIGTERM, stop.ask)
    signal.signal(signal.SIGINT, stop.ask)
    try:
        task = Task.take(os.environ)
        if os.getppid() != task.parent:
            sys.exit(STOPPED)
        end_with_parent(task.parent, STOPPED)
        os.environ.pop(TOKEN)
        perform(task, stop)
    except Exception as error:
        if stop():
            sys.exit(STOPPED)
        if no_room(error):
            log.error("There is no room on the disk (%s); the run goes on from its checkpoint.", error)
            sys.exit(CRASHED)
        if isinstance(error, EmoflError):
            log.error("%s", error)
            sys.exit(error.exit_code)
        log.exception("The ServerApp broke.")
        sys.exit(CRASHED)
    sys.exit(0)


if __name__ == "__main__":
    main()
