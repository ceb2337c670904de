"""Flower's own simulation engine with Ray, for several machines. `simulation.run` uses it.

It costs 22 s to start and 10 ms a message. It touches Flower's internals (flwr 1.41.0, pinned).
"""

import logging
import threading
from collections.abc import Callable
from queue import Queue

from flwr.app import Context, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import RUN_ID_NUM_BYTES, SUPERLINK_NODE_ID, TASK_ID_NUM_BYTES
from flwr.proto.task_pb2 import Task
from flwr.server.superlink.fleet.vce.backend.backend import Backend
from flwr.server.superlink.fleet.vce.metrics import VceMetrics
from flwr.server.superlink.fleet.vce.vce_api import _register_node_info_stores, _register_nodes, run_api
from flwr.server.superlink.linkstate import InMemoryLinkState, LinkStateFactory
from flwr.server.superlink.linkstate.in_memory_linkstate import RunRecord
from flwr.server.superlink.linkstate.utils import generate_rand_int_from_bytes
from flwr.serverapp import ServerApp
from flwr.simulation.run_simulation import run_serverapp_th
from flwr.supercore.constant import FLWR_IN_MEMORY_DB_NAME, NOOP_FEDERATION_ID
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.federation import NoOpFederationManager
from flwr.superlink.grid import InMemoryGrid

from common.errors import DependencyError, RunError
from simulation.local_grid import NodeOrder


def require_ray() -> None:
    """Raises:
    DependencyError: Ray is not installed.
    """
    try:
        import flwr.server.superlink.fleet.vce.backend.raybackend  # noqa: F401
    except ImportError as error:
        raise DependencyError("Ray is not installed. Run: pip install 'emofl[ray]', or use --backend in-process.") from error


def ray_backend(workers: int, cores: int) -> Backend:
    """Ray on this machine.

    Raises:
        DependencyError: it is not installed.
    """
    require_ray()
    from flwr.server.superlink.fleet.vce.backend.raybackend import RayBackend

    share = max(1, cores // workers)
    return RayBackend(
        {
            "init_args": {"logging_level": logging.ERROR, "log_to_driver": False, "num_cpus": cores},
            "client_resources": {"num_cpus": share, "num_gpus": 0.0},
        }
    )


def simulate_on_ray(
    make_server_app: Callable[[NodeOrder, Callable[[], bool]], ServerApp],
    make_client_app: Callable[[], ClientApp],
    clients: int,
    backend: Backend,
) -> None:
    """As `simulation.backend.simulate`, with a `ray_backend` in place of a crew."""
    logging.getLogger("flwr").setLevel(logging.ERROR)
    factory = LinkStateFactory(FLWR_IN_MEMORY_DB_NAME, NoOpFederationManager(), ObjectStoreFactory())
    run = Run.create_empty(run_id=generate_rand_int_from_bytes(RUN_ID_NUM_BYTES))
    run.primary_task_id = generate_rand_int_from_bytes(TASK_ID_NUM_BYTES)
    run.federation_id = NOOP_FEDERATION_ID
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = run.primary_task_id, run.run_id, SUPERLINK_NODE_ID
    state = factory.state()
    if not isinstance(state, InMemoryLinkState):
        raise RunError("Flower did not give an in-memory state; flwr 1.41.0 is needed.")
    state.run_ids[run.run_id] = RunRecord(run=run)
    state.task_store[run.primary_task_id] = Task(task_id=run.primary_task_id, run_id=run.run_id)
    grid = InMemoryGrid(state_factory=factory)
    grid.set_run(run)
    nodes = _register_nodes(clients, factory)
    stores = _register_node_info_stores(nodes, run)
    stop: threading.Event = threading.Event()
    failures: Queue[BaseException] = Queue()
    server_app = make_server_app(lambda found: sorted(found, key=lambda node: nodes[node]), stop.is_set)
    context = Context(run_id=run.run_id, node_id=0, node_config={}, state=RecordDict(), run_config={})
    server = run_serverapp_th(None, server_app, context, grid, "", stop, failures, False, Queue())
    try:
        run_api(make_client_app, lambda: backend, nodes, factory, stores, stop, VceMetrics())
    except RuntimeError as error:
        raise RunError(f"Flower's simulation engine broke: {error.__cause__ or error}") from error
    finally:
        stop.set()
        server.join()
    if not failures.empty():
        raise failures.get()
