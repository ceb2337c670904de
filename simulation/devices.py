"""The simulated devices: each has its share of the faces, its own ledger file and the real device's code."""

import hashlib
from collections.abc import Callable
from dataclasses import astuple, dataclass, field
from pathlib import Path

from flwr.app import Context

from common.config import RunConfig
from common.errors import RunError
from common.privacy.accountant import Release, spent_epsilon
from common.privacy.ledger import Ledger
from fl_client.device import Device
from fl_client.model_cache import ModelCache
from fl_client.own_head import FEDERATED
from fl_client.policy import Policy
from fl_client.secure_sum import SecureSums
from models.faces.faceset import FaceSet
from models.preprocess import Preprocessing
from simulation.population import make_population


@dataclass
class SimulatedDevices:
    """Opens device n of a run; picklable, so that Ray's workers can open it too.

    Attributes:
        config: of the run.
        folder: where the devices' ledgers live, one small file each.
        faces: gives the training faces of device n; None takes the run's population.
    """

    config: RunConfig
    folder: Path
    faces: Callable[[int], FaceSet] | None = None
    _models: ModelCache = field(default_factory=ModelCache, repr=False)
    _sums: SecureSums = field(default_factory=SecureSums, repr=False)

    def __getstate__(self) -> dict[str, object]:
        return {"config": self.config, "folder": self.folder, "faces": self.faces}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state, _models=ModelCache(), _sums=SecureSums())

    def ledger(self, number: int) -> Path:
        """The ledger file of device `number`."""
        return self.folder / f"{number:05d}" / "ledger.jsonl"

    def own_head(self, number: int) -> Path:
        """The file of device `number`'s own head, in runs that keep heads on the devices."""
        return self.folder / f"{number:05d}" / FEDERATED

    def open(self, context: Context) -> Device:
        """The device that a simulation's context stands for."""
        number = context.node_config["partition-id"]
        if not isinstance(number, int):
            raise RunError("Flower's simulation did not number its devices.")

        def faces(preprocessing: Preprocessing) -> FaceSet:
            if self.faces is not None:
                return self.faces(number)
            return make_population(self.config.data, self.config.model, self.config.seed).device(number)

        privacy = self.config.privacy
        policy = Policy(
            largest_epsilon=privacy.epsilon,
            largest_delta=privacy.delta,
            allow_non_private=not privacy.private,
            require_secure_aggregation=self.config.upload.secure,
        )
        seed = (self.config.seed << 20) + number

        def rounding(round_number: int) -> Callable[[int], bytes]:
            return lambda count: hashlib.shake_256(f"{seed}/{round_number}".encode()).digest(count)

        return Device(
            faces,
            self.ledger(number),
            policy,
            self._models,
            seed,
            rounding=rounding,
            sums=self._sums,
            number=number,
            own_head=self.own_head(number),
        )


class SpentBudgets:
    """What the simulated devices have spent, read from their ledgers as the owner of each would."""

    def __init__(self, devices: SimulatedDevices, clients: int) -> None:
        self._devices, self._clients = devices, clients
        self._seen: dict[int, tuple[int, list[Release]]] = {}
        self._bounds: dict[tuple[Release, ...], float] = {}
        self._exact: dict[tuple[Release, ...], float] = {}

    def _releases(self) -> dict[int, list[Release]]:
        for number in range(self._clients):
            path = self._devices.ledger(number)
            size = path.stat().st_size if path.exists() else 0
            if self._seen.get(number, (-1, []))[0] != size:
                self._seen[number] = (size, Ledger(path).releases)
        return {number: releases for number, (_, releases) in self._seen.items()}

    def largest(self) -> float:
        """Cumulative epsilon, by the run's accountant, of the device that has spent most by it.

        PRV takes half a second for a device: it is asked in the order of RDP, which is never the smaller one, until nobody who is
        left can have spent more.
        """
        privacy, most = self._devices.config.privacy, 0.0
        lists = {_in_order(releases) for releases in self._releases().values()}
        known = self._bounds
        self._bounds = {each: known[each] if each in known else spent_epsilon(each, privacy.delta) for each in lists}
        if privacy.accountant == "rdp":
            return max(self._bounds.values(), default=0.0)
        self._exact = {each: epsilon for each, epsilon in self._exact.items() if each in lists}
        for each in sorted(lists, key=lambda releases: -self._bounds[releases]):
            if self._bounds[each] <= most:
                break
            if each not in self._exact:
                self._exact[each] = spent_epsilon(each, privacy.delta, privacy.accountant)
            most = max(most, self._exact[each])
        return most


def _in_order(releases: list[Release]) -> tuple[Release, ...]:
    return tuple(sorted(releases, key=astuple))
