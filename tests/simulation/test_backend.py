"""A real ServerApp and ClientApp over the simulation's own grid, and Flower's engine where Ray is asked for."""

import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from common.errors import DependencyError, RunError
from fl_server.exchange import Exchange
from simulation.backend import make_crew, simulate
from simulation.local_grid import Desk, NodeOrder
from simulation.ray_engine import ray_backend


def echo_app(seen: list[tuple[int, str]]) -> ClientApp:
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        number = int(context.node_config["partition-id"])
        seen.append((number, threading.current_thread().name))
        if number == 3:
            raise ValueError("secret text")
        return Message(RecordDict({"reply": ConfigRecord({"number": number, "seen": len(seen)})}), reply_to=message)

    return app


def echo_alone() -> ClientApp:
    """Picklable by name, for worker processes; counts the messages of its own process."""
    return echo_app([])


def ask_all(order: NodeOrder, answers: list[Any], step: str = "ask") -> ServerApp:
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        nodes = order(grid.get_node_ids())
        content = RecordDict({step: ConfigRecord()})
        messages = [Message(content, dst_node_id=node, message_type="train") for node in nodes]
        for reply in Exchange(grid, 0.01).ask(messages, 300):
            answers.append("error" if reply.has_error() else int(reply.content["reply"]["number"]))  # type: ignore[index, arg-type]
            answers.append(nodes.index(reply.metadata.src_node_id))

    return app


@pytest.mark.parametrize("workers", [1, 3])
def test_every_device_answers_under_its_own_number_and_one_failure_is_one_error_reply(workers: int) -> None:
    seen: list[tuple[int, str]] = []
    answers: list[Any] = []
    simulate(lambda order, stopped: ask_all(order, answers), lambda: echo_app(seen), 6, make_crew("in-process", workers, 2))
    pairs = dict(zip(answers[1::2], answers[::2], strict=True))
    assert pairs == {0: 0, 1: 1, 2: 2, 3: "error", 4: 4, 5: 5}
    assert sorted(number for number, _ in seen) == list(range(6))
    assert threading.active_count() == 1 or not any(t.name.startswith("worker") for t in threading.enumerate())


@pytest.mark.slow
def test_worker_processes_answer_the_same() -> None:
    answers: list[Any] = []
    simulate(lambda order, stopped: ask_all(order, answers), echo_alone, 6, make_crew("processes", 2, 2))
    assert dict(zip(answers[1::2], answers[::2], strict=True)) == {0: 0, 1: 1, 2: 2, 3: "error", 4: 4, 5: 5}


def test_what_goes_on_waits_for_the_worker_that_began_it() -> None:
    desk = Desk(2, lambda message: message.has_content() and "sum" in message.content)
    begun = Message(RecordDict({"request": ConfigRecord()}), dst_node_id=2, message_type="train")
    later = Message(RecordDict({"sum": ConfigRecord()}), dst_node_id=2, message_type="train")
    desk.put(begun, 0)
    assert desk.take(1) == (begun, 0)
    desk.put(later, 0)
    desk.put(begun, 5)
    assert desk.take(0) == (begun, 5)
    assert desk.take(1) == (later, 0)
    desk.close()
    assert desk.take(0) is None


def test_an_error_of_the_server_app_comes_out() -> None:
    def broken(order: NodeOrder, stopped: Callable[[], bool]) -> ServerApp:
        app = ServerApp()

        @app.main()
        def main(grid: Grid, context: Context) -> None:
            raise ZeroDivisionError

        return app

    with pytest.raises(ZeroDivisionError):
        simulate(broken, echo_alone, 2, make_crew("in-process", 1, 1))


def test_a_message_for_nobody_is_refused() -> None:
    def astray(order: NodeOrder, stopped: Callable[[], bool]) -> ServerApp:
        app = ServerApp()

        @app.main()
        def main(grid: Grid, context: Context) -> None:
            grid.push_messages([Message(RecordDict(), dst_node_id=77, message_type="train")])

        return app

    with pytest.raises(RunError, match="no device with node id 77"):
        simulate(astray, echo_alone, 2, make_crew("in-process", 1, 1))


def test_ray_that_is_not_installed_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "flwr.server.superlink.fleet.vce.backend.raybackend", None)
    with pytest.raises(DependencyError, match=r"pip install 'emofl\[ray\]'"):
        ray_backend(1, 1)


def test_devices_that_cannot_be_opened_end_the_run_before_it_begins() -> None:
    def no_room() -> ClientApp:
        raise OSError("no room")

    answers: list[Any] = []
    with pytest.raises(RunError, match="no room"):
        simulate(lambda order, stopped: ask_all(order, answers), no_room, 3, make_crew("in-process", 1, 1))
    assert answers == []


def test_an_interrupted_run_stops_its_server() -> None:
    """What Ctrl-C does: the server app is told, and the workers end."""
    told: list[bool] = []

    def waits(order: NodeOrder, stopped: Callable[[], bool]) -> ServerApp:
        app = ServerApp()

        @app.main()
        def main(grid: Grid, context: Context) -> None:
            signal.raise_signal(signal.SIGINT)
            while not stopped():
                time.sleep(0.01)
            told.append(True)

        return app

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs begin with it ignored
    try:
        with pytest.raises(KeyboardInterrupt):
            simulate(waits, echo_alone, 1, make_crew("in-process", 1, 1))
    finally:
        signal.signal(signal.SIGINT, before)
    assert told == [True]
