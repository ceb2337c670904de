"""How the faces of a simulation are dealt to its clients: named schemes, each a pure function of faces and settings.

`simulation.population` calls `partition`; `skew_table` counts what came out, for plots.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from common.config import Scheme
from common.errors import DataError
from models.faces.faceset import FaceSet

Rows = NDArray[np.int64]

_POOR_SHARE = 0.1


class PartitionConfig(BaseModel):
    """How to deal.

    Attributes:
        scheme: `iid`: evenly, at random. `dirichlet`: each class is split over the clients in Dirichlet(alpha) shares
            (label skew as in Q. Li et al., "Federated Learning on Non-IID Data Silos", ICDE 2022, section IV-A).
            `one-class-poor`: each client gets a tenth of the usual share of one class, the classes taking turns.
            `quantity`: Dirichlet(alpha) shares of all faces, whatever their class (the same paper, section IV-C).
            `by-person`: nobody's faces lie with two clients, sizes as even as people allow.
        clients: how many there are.
        alpha: concentration of `dirichlet` and `quantity`: small is skewed, large is even.
        min_examples: the least a client holds. Clients that drew fewer get faces of whoever then holds most.
        seed: of the whole deal.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    scheme: Scheme = "dirichlet"
    clients: int = Field(ge=1)
    alpha: float = Field(default=0.3, gt=0, allow_inf_nan=False)
    min_examples: int = Field(default=1, ge=1)
    seed: int = Field(default=0, ge=0)


def partition(faces: FaceSet, config: PartitionConfig) -> list[Rows]:
    """Deal every face to exactly one client; the same arguments always give the same deal.

    Returns:
        For each client the ascending row numbers of its faces, at least `min_examples` of them.

    Raises:
        DataError: there are too few faces or people for so many clients, or nobody knows who is on the faces.
    """
    least = config.min_examples
    if len(faces) < config.clients * least:
        fewer = f"ask for at most {len(faces) // least} clients (--clients), or " if len(faces) >= least else ""
        raise DataError(
            f"{len(faces)} faces cannot give {config.clients} clients at least {least} each: {fewer}take at least "
            f"{config.clients * least} faces (drawn ones: --drawn)."
        )
    parts = _SCHEMES[config.scheme](faces, config, np.random.default_rng(config.seed))
    return [np.sort(part) for part in parts]


def skew_table(parts: Sequence[Rows], faces: FaceSet) -> NDArray[np.int64]:
    """(clients, classes) int64: how many faces of each class (the most likely one) each client holds."""
    labels, classes = faces.labels, len(faces.classes)
    table = np.zeros((len(parts), classes), np.int64)
    for client, rows in enumerate(parts):
        table[client] = np.bincount(labels[rows], minlength=classes)
    return table


def _iid(faces: FaceSet, config: PartitionConfig, rng: np.random.Generator) -> list[Rows]:
    return list(np.array_split(rng.permutation(len(faces)), config.clients))


def _dirichlet(faces: FaceSet, config: PartitionConfig, rng: np.random.Generator) -> list[Rows]:
    shares = [_dirichlet_shares(config, rng) for _ in faces.classes]
    return _filled_up(_split_classes(faces, shares, rng), config.min_examples)


def _one_class_poor(faces: FaceSet, config: PartitionConfig, rng: np.random.Generator) -> list[Rows]:
    order = rng.permutation(len(faces.classes))
    poor_in = order[np.arange(config.clients) % len(order)]
    weights = [np.where(poor_in == label, _POOR_SHARE, 1.0) for label in range(len(order))]
    return _filled_up(_split_classes(faces, [w / w.sum() for w in weights], rng), config.min_examples)


def _quantity(faces: FaceSet, config: PartitionConfig, rng: np.random.Generator) -> list[Rows]:
    parts = _split(rng.permutation(len(faces)), _dirichlet_shares(config, rng))
    return _filled_up(parts, config.min_examples)


def _by_person(faces: FaceSet, config: PartitionConfig, rng: np.random.Generator) -> list[Rows]:
    if faces.people is None:
        raise DataError("These faces cannot be dealt by person, as it is not known whose they are: use another scheme.")
    names, sizes = np.unique(faces.people, return_counts=True)
    if len(names) < config.clients:
        raise DataError(f"{len(names)} people cannot be dealt to {config.clients} clients: ask for at most {len(names)} clients.")
    shuffled = rng.permutation(len(names))
    by_size = shuffled[np.argsort(-sizes[shuffled], kind="stable")]
    holder = np.empty(len(names), np.int64)
    held = np.zeros(config.clients, np.int64)
    for person in by_size:
        holder[person] = held.argmin()
        held[holder[person]] += sizes[person]
    if held.min() < config.min_examples:
        raise DataError(
            f"Dealt by person, one of {config.clients} clients would hold {held.min()} faces, fewer than "
            f"{config.min_examples}: ask for fewer clients (--clients), or take more faces (drawn ones: --drawn)."
        )
    client = holder[np.searchsorted(names, faces.people)]
    return [np.flatnonzero(client == number) for number in range(config.clients)]


_SCHEMES: dict[Scheme, Callable[[FaceSet, PartitionConfig, np.random.Generator], list[Rows]]] = {
    "iid": _iid,
    "dirichlet": _dirichlet,
    "one-class-poor": _one_class_poor,
    "quantity": _quantity,
    "by-person": _by_person,
}


def _dirichlet_shares(config: PartitionConfig, rng: np.random.Generator) -> NDArray[np.float64]:
    """(clients,) shares that sum to 1; where alpha is too small for floating point, one client gets all."""
    shares = rng.dirichlet(np.full(config.clients, config.alpha))
    if not np.isfinite(shares).all() or not np.isclose(shares.sum(), 1.0):
        shares = np.eye(config.clients)[rng.integers(config.clients)]
    return shares


def _split(rows: Rows, shares: NDArray[np.float64]) -> list[Rows]:
    """Cut `rows` at the rounded running sum of `shares`."""
    cuts = np.rint(np.cumsum(shares)[:-1] * len(rows)).astype(np.int64)
    return np.split(rows, np.clip(cuts, 0, len(rows)))


def _split_classes(faces: FaceSet, shares: Sequence[NDArray[np.float64]], rng: np.random.Generator) -> list[Rows]:
    """Split each class by its own shares, and give each client its piece of every class in one shuffled array."""
    labels = faces.labels
    pieces = [_split(rng.permutation(np.flatnonzero(labels == k)), share) for k, share in enumerate(shares)]
    return [rng.permutation(np.concatenate(mine)) for mine in zip(*pieces, strict=True)]


def _filled_up(parts: list[Rows], least: int) -> list[Rows]:
    """Move the last face of whoever holds most to whoever holds too few, until nobody does."""
    sizes = np.array([len(part) for part in parts])
    hands = [part.tolist() for part in parts]
    for client in np.flatnonzero(sizes < least):
        while sizes[client] < least:
            donor = sizes.argmax()
            hands[client].append(hands[donor].pop())
            sizes[donor] -= 1
            sizes[client] += 1
    return [np.array(hand, np.int64) for hand in hands]
