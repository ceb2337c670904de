"""A whole simulation: data, devices, rounds, published models, plots. `fl-sim run` and `fl-sim demo` call `run_simulation`."""

import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from flwr.serverapp import ServerApp

from common.canonical import decode, encode
from common.config import RunConfig, make_config
from common.errors import ConfigError, EmoflError, RunError
from common.files import write_atomic
from common.identity import SigningKey
from fl_client.app import build_client_app
from fl_server.app import build_server_app
from fl_server.hub import Registry
from fl_server.publisher import Publisher
from fl_server.rounds import CHECKPOINT, Observers, Rounds
from models.mobilenet import build_model
from models.starting_point import pin_start, pinned_start, starting_point
from simulation.backend import MOST_WORKERS, BackendName, MakeServerApp, make_crew, simulate
from simulation.devices import SimulatedDevices, SpentBudgets
from simulation.local_grid import NodeOrder
from simulation.population import Population, StoredFaces, make_population

POLL = 0.002
"""Seconds between looks for replies: to look costs microseconds here."""

CONFIG, REGISTRY, KEY = "config.json", "registry", "signing_key.pem"


@dataclass(frozen=True)
class Engine:
    """What carries the messages.

    Attributes:
        backend: `in-process`: threads; `processes`: a process per worker; `ray`.
        workers: devices that train at the same time.
        cores: processor cores shared among them.
    """

    backend: BackendName = "in-process"
    workers: int = 1
    cores: int = len(os.sched_getaffinity(0))

    @classmethod
    def chosen(cls, backend: BackendName, workers: int | None) -> "Engine":
        """What a command's options say; one worker per core where they do not.

        Raises:
            ConfigError: there cannot be so many workers.
        """
        cores = cls.cores
        workers = cores if workers is None else workers
        if workers < 1:
            raise ConfigError(f"--workers must be at least 1, not {workers}.")
        if backend != "ray" and workers > MOST_WORKERS:
            raise ConfigError(f"--workers can be at most {MOST_WORKERS} on this machine, not {workers}; it has {cores} cores.")
        return cls(backend, workers, cores)

    def check(self, config: RunConfig) -> None:
        """Raises:
        ConfigError: this backend cannot carry the run's messages.
        DependencyError: it is not installed.
        """
        if self.backend == "ray" and config.upload.secure:
            raise ConfigError(
                "Ray's workers forget a device between two messages, and a secure sum has six: add "
                "--no-secure-aggregation, or use --backend in-process or processes."
            )
        if self.backend == "ray":
            from simulation.ray_engine import require_ray

            require_ray()


@dataclass(frozen=True)
class RunFolder:
    """Where one run lives: config.json, metrics.jsonl, checkpoint, devices' ledgers, registry, plots."""

    path: Path

    @property
    def name(self) -> str:
        """The run's name, written into ledgers and manifests."""
        return str(self._stored()["run"])

    @property
    def config(self) -> RunConfig:
        """The run's configuration."""
        return make_config(self._stored()["config"])

    def _stored(self) -> dict[str, Any]:
        path = self.path / CONFIG
        try:
            stored: dict[str, Any] = decode(path.read_bytes())
            return {"run": str(stored["run"]), "config": dict(stored["config"])}
        except OSError as error:
            raise RunError(f"{self.path} is not a run folder: it holds no {CONFIG}.") from error
        except (EmoflError, KeyError, TypeError, ValueError) as error:
            raise RunError(f"{path} is damaged; this run cannot go on.") from error

    @classmethod
    def create(cls, path: Path, config: RunConfig, now: datetime) -> "RunFolder":
        """A fresh run folder, made only once the data, the model and what it starts from are known to be usable.

        Raises:
            RunError: the folder holds something already.
            DataError, ModelError, ConfigError, IntegrityError: the run could not start.
        """
        require_empty(path)
        build_model(config.model)
        start = starting_point(config)
        make_population(config.data, config.model, config.seed)
        try:
            path.mkdir(parents=True, exist_ok=True)
            name = f"{now:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
            write_atomic(path / CONFIG, encode({"run": name, "config": config.model_dump(mode="json")}))
            pin_start(start, path)
        except OSError as error:
            raise RunError(f"The run folder {path} cannot be written: {error.strerror}.") from error
        return cls(path)


def require_empty(path: Path) -> None:
    """Refuse to write a run into a folder that holds something, before any work is done.

    Raises:
        RunError: it does.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        advice = f", or go on with: fl-sim run --resume {path}" if _holds_run(path) else "."
        raise RunError(f"{path} is not empty. Give another --out{advice}")


def _holds_run(path: Path) -> bool:
    try:
        return bool(RunFolder(path).name)
    except RunError:
        return False


def run_simulation(
    folder: RunFolder, engine: Engine, watch: Callable[[Population, Observers], Observers] | None = None
) -> Population:
    """Run, or go on with, the simulation in `folder`.

    Args:
        watch: given the population and our observers, returns observers that also show progress.

    Returns:
        The population, for the report.
    """
    config = folder.config
    engine.check(config)
    clients = config.data.clients
    population = make_population(config.data, config.model, config.seed)
    devices = SimulatedDevices(config, folder.path / "devices")
    budgets = SpentBudgets(devices, clients)
    start = pinned_start(config, folder.path, begun=(folder.path / CHECKPOINT).exists())
    rounds = Rounds(config, folder.name, folder.path, population.validation, poll=POLL)
    registry = Registry(folder.path / REGISTRY, SigningKey.load_or_create(folder.path / KEY), config.server.keep_models)
    publisher = Publisher(registry, config, folder.name, rounds.initial_model(), start=start)

    def annotate(number: int) -> dict[str, Any]:
        return {"epsilon": round(budgets.largest(), 4) if config.privacy.private else None}

    observers = Observers(annotate=annotate, publish=publisher.publish, published=publisher.published)
    rounds = replace(rounds, observers=watch(population, observers) if watch else observers)

    def server_app(order: NodeOrder, stopped: Callable[[], bool]) -> ServerApp:
        return build_server_app(replace(rounds, order=order, stopped=stopped), start.weights)

    _carry(engine, server_app, devices, population)
    if not (folder.path / CHECKPOINT).exists():
        raise RunError("The simulation ended without a checkpoint.")
    return population


def _carry(engine: Engine, server_app: MakeServerApp, devices: SimulatedDevices, population: Population) -> None:
    """Let the devices answer the server, over what `engine` says."""
    clients = len(population.training)
    if engine.backend == "ray":
        from simulation.ray_engine import ray_backend, simulate_on_ray

        client_app = partial(build_client_app, devices.open)
        simulate_on_ray(server_app, client_app, clients, ray_backend(engine.workers, engine.cores))
        return
    crew = make_crew(engine.backend, engine.workers, engine.cores)
    if engine.backend == "in-process":
        simulate(server_app, partial(build_client_app, devices.open), clients, crew)
        return
    with TemporaryDirectory(prefix="emofl-") as shared:
        apart = replace(devices, faces=StoredFaces.write(population, Path(shared)))
        simulate(server_app, partial(build_client_app, apart.open), clients, crew)


def default_out() -> Path:
    """A folder for a run that was given none: runs/<time>."""
    return Path("runs") / f"{datetime.now(UTC):%Y%m%d-%H%M%S}"
