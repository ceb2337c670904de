"""What carries a simulation's messages: threads of this process or worker processes. `simulation.run` calls `simulate`.

Flower's own entry points are deprecated and hard-wire Ray; its engine polls, which costs 3 ms a message.
"""

import logging
import os
import threading
from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from flwr.app import Context, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from simulation.crew import Processes, Threads
from simulation.local_grid import Crew, LocalGrid, NodeOrder

BackendName = Literal["in-process", "processes", "ray"]
MOST_WORKERS = min(32, (os.cpu_count() or 1) + 4)
"""Beyond, workers only wait for one another."""

MakeCrew = Callable[[Callable[[], ClientApp], int], Crew]
"""A crew from what makes the ClientApp, and the number of devices."""
MakeServerApp = Callable[[NodeOrder, Callable[[], bool]], ServerApp]


def make_crew(name: Literal["in-process", "processes"], workers: int, cores: int) -> MakeCrew:
    """What makes a crew of `workers` on `cores` cores."""
    kind = Threads if name == "in-process" else Processes
    return partial(kind, workers=workers, threads=max(1, cores // workers))


def simulate(make_server_app: MakeServerApp, make_client_app: Callable[[], ClientApp], clients: int, make_crew: MakeCrew) -> None:
    """Run a ServerApp against `clients` simulated devices until it ends.

    Args:
        make_server_app: given an order that sorts node ids by device number, and what says that the run was stopped, makes the
            ServerApp.
        make_client_app: the devices; the app finds its device number as `partition-id` in the context's node configuration.

    Raises:
        Whatever the ServerApp raised; RunError when the workers cannot be started.
    """
    logging.getLogger("flwr").setLevel(logging.ERROR)
    run = Run.create_empty(run_id=1)
    TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 1
    crew = make_crew(make_client_app, clients)
    grid, stop = LocalGrid(clients, crew, run), threading.Event()
    server_app = make_server_app(sorted, stop.is_set)
    context = Context(run_id=1, node_id=0, node_config={}, state=RecordDict(), run_config={})
    failures: list[BaseException] = []
    # Not `Thread.join`: one that Ctrl-C interrupts takes the thread for ended in Python 3.11.
    over = threading.Event()

    def serve() -> None:
        torch.set_num_threads(crew.threads)  # counts for one thread: a new one would take all cores, and let them spin
        try:
            server_app(grid=grid, context=context)
        except BaseException as error:
            failures.append(error)
        finally:
            over.set()

    server = threading.Thread(target=serve, name="server")
    try:
        crew.start(grid.keep)
        server.start()
        while not over.wait(0.5):
            pass
    finally:
        stop.set()
        crew.stop()
        if server.ident is not None:
            over.wait()
    if failures:
        raise failures[0]
