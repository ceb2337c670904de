"""Holds Flower's internals to what `simulation.backend` relies on, by running a real simulation through them."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from common.errors import DependencyError, RunError
from fl_server.exchange import Exchange
from simulation.backend import InProcessBackend, NodeOrder, make_backend, simulate

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:flwr")


def echo_app(seen: list[tuple[int, str]]) -> ClientApp:
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        number = int(context.node_config["partition-id"])
        seen.append((number, threading.current_thread().name))
        if number == 3:
            raise ValueError("secret text")
        return Message(RecordDict({"reply": ConfigRecord({"number": number})}), reply_to=message)

    return app


def ask_all(order: NodeOrder, answers: list[Any]) -> ServerApp:
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        nodes = order(grid.get_node_ids())
        messages = [Message(RecordDict(), dst_node_id=node, message_type="train") for node in nodes]
        for reply in Exchange(grid, 0.01).ask(messages, 30):
            answers.append("error" if reply.has_error() else int(reply.content["reply"]["number"]))  # type: ignore[index, arg-type]
            answers.append(nodes.index(reply.metadata.src_node_id))

    return app


@pytest.mark.parametrize("workers", [1, 3])
def test_every_device_answers_under_its_own_number_and_one_failure_is_one_error_reply(workers: int) -> None:
    seen: list[tuple[int, str]] = []
    answers: list[Any] = []
    simulate(lambda order, stopped: ask_all(order, answers), echo_app(seen), 6, make_backend("in-process", workers, 2))
    pairs = dict(zip(answers[1::2], answers[::2], strict=True))
    assert pairs == {0: 0, 1: 1, 2: 2, 3: "error", 4: 4, 5: 5}
    assert sorted(number for number, _ in seen) == list(range(6))


def test_an_error_of_the_server_app_comes_out() -> None:
    def broken(order: NodeOrder, stopped: Callable[[], bool]) -> ServerApp:
        app = ServerApp()

        @app.main()
        def main(grid: Grid, context: Context) -> None:
            raise ZeroDivisionError

        return app

    with pytest.raises(ZeroDivisionError):
        simulate(broken, echo_app([]), 2, InProcessBackend(1, 1))


def test_ray_that_is_not_installed_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "flwr.server.superlink.fleet.vce.backend.raybackend", None)
    with pytest.raises(DependencyError, match=r"pip install 'emofl\[ray\]'"):
        make_backend("ray", 1, 1)


def test_an_engine_that_breaks_ends_the_server_app_at_once() -> None:
    class Broken(InProcessBackend):
        def build(self, app_fn: Callable[[], ClientApp]) -> None:
            raise OSError("no room")

    answered: list[str] = []

    def waits(order: NodeOrder, stopped: Callable[[], bool]) -> ServerApp:
        app = ServerApp()

        @app.main()
        def main(grid: Grid, context: Context) -> None:
            while not list(grid.get_node_ids()):
                pass
            messages = [Message(RecordDict(), dst_node_id=node, message_type="train") for node in grid.get_node_ids()]
            answered.extend(str(reply) for reply in Exchange(grid, 0.01, stopped).ask(messages, 600))

        return app

    with pytest.raises(RunError, match="no room"):
        simulate(waits, echo_app([]), 3, Broken(1, 1))
    assert answered == []
