"""Deals faces out to simulated devices, by named schemes of skew. Pure: faces and a configuration in, rows per device out."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from common.config import Settings
from common.errors import DataError
from models.faces.faceset import FaceSet

Rows = NDArray[np.int64]
Scheme = Literal["iid", "dirichlet", "one-class-poor", "quantity", "by-person"]

POOR_SHARE = 0.1
"""Part of its fair share that a device of `one-class-poor` gets of the class it lacks."""


class PartitionConfig(Settings):
    """How to deal faces out.

    Attributes:
        scheme: `iid`: at random, equal sizes. `dirichlet`: each class is split among devices in proportions drawn from
            Dirichlet(alpha) (Li et al. 2022, "Federated learning on non-IID data silos", section 4.1). `one-class-poor`: like
            iid, but each device has only a tenth of its share of one class. `quantity`: sizes in proportions drawn from
            Dirichlet(alpha), classes at random. `by-person`: whole people, so that no person is on two devices.
        clients: number of devices.
        alpha: concentration; smaller is more skewed.
        min_examples: no device has fewer faces; the largest devices give up some of theirs until it holds.
        seed: of the deal.
    """

    scheme: Scheme = "dirichlet"
    clients: int = Field(default=20, ge=1)
    alpha: float = Field(default=0.3, gt=0)
    min_examples: int = Field(default=8, ge=1)
    seed: int = 0


def partition(faces: FaceSet, config: PartitionConfig) -> list[Rows]:
    """Rows of `faces` for each device, ascending; every row is dealt exactly once. The same configuration deals alike.

    Raises:
        DataError: there are too few faces, or too few people, for so many devices; or people are not known.
    """
    if len(faces) < config.clients * config.min_examples:
        raise DataError(
            f"{len(faces)} faces are too few for {config.clients} devices with at least {config.min_examples} each; "
            f"use at most {len(faces) // config.min_examples} devices."
        )
    random = np.random.default_rng(config.seed)
    if config.scheme == "by-person":
        return _by_person(faces, config, random)
    deal = {"iid": _iid, "dirichlet": _dirichlet, "one-class-poor": _one_class_poor, "quantity": _quantity}[config.scheme]
    parts = _level(deal(faces, config, random), config.min_examples, random)
    return [np.sort(part) for part in parts]


def skew_table(parts: list[Rows], faces: FaceSet) -> NDArray[np.int64]:
    """(devices, classes) number of faces by most likely class."""
    labels = faces.labels
    return np.stack([np.bincount(labels[rows], minlength=len(faces.classes)) for rows in parts])


def _proportions(count: int, alpha: float, random: np.random.Generator) -> NDArray[np.float64]:
    """Dirichlet(alpha); where alpha is so small that every gamma draw underflows, its limit: all to one."""
    draws = random.standard_gamma(alpha, count)
    if draws.sum() <= 0:
        draws[random.integers(count)] = 1.0
    return np.asarray(draws / draws.sum())


def _cut(rows: Rows, proportions: NDArray[np.float64]) -> list[Rows]:
    ends = np.rint(np.cumsum(proportions)[:-1] * len(rows)).astype(np.int64)
    return list(np.split(rows, ends))


def _iid(faces: FaceSet, config: PartitionConfig, random: np.random.Generator) -> list[Rows]:
    return list(np.array_split(random.permutation(len(faces)), config.clients))


def _quantity(faces: FaceSet, config: PartitionConfig, random: np.random.Generator) -> list[Rows]:
    return _cut(random.permutation(len(faces)), _proportions(config.clients, config.alpha, random))


def _dirichlet(faces: FaceSet, config: PartitionConfig, random: np.random.Generator) -> list[Rows]:
    labels, parts = faces.labels, [np.empty(0, dtype=np.int64)] * config.clients
    for number in range(len(faces.classes)):
        rows = random.permutation(np.flatnonzero(labels == number))
        shares = _cut(rows, _proportions(config.clients, config.alpha, random))
        parts = [np.concatenate([part, share]) for part, share in zip(parts, shares, strict=True)]
    return parts


def _one_class_poor(faces: FaceSet, config: PartitionConfig, random: np.random.Generator) -> list[Rows]:
    labels, classes = faces.labels, len(faces.classes)
    lacks = (np.arange(config.clients) + random.integers(classes)) % classes
    parts = [np.empty(0, dtype=np.int64)] * config.clients
    for number in range(classes):
        weights = np.where(lacks == number, POOR_SHARE, 1.0)
        shares = _cut(random.permutation(np.flatnonzero(labels == number)), weights / weights.sum())
        parts = [np.concatenate([part, share]) for part, share in zip(parts, shares, strict=True)]
    return parts


def _by_person(faces: FaceSet, config: PartitionConfig, random: np.random.Generator) -> list[Rows]:
    if faces.people is None:
        raise DataError("This data does not say who is on a face; by-person needs drawn faces or another scheme.")
    people = random.permutation(np.unique(faces.people))
    if len(people) < config.clients:
        raise DataError(f"{len(people)} people cannot be dealt to {config.clients} devices; use at most {len(people)} devices.")
    rows = [np.flatnonzero(np.isin(faces.people, group)) for group in np.array_split(people, config.clients)]
    if min(len(part) for part in rows) < config.min_examples:
        raise DataError(f"Some people have fewer than {config.min_examples} faces; use fewer devices or another scheme.")
    return rows


def _level(parts: list[Rows], least: int, random: np.random.Generator) -> list[Rows]:
    """Move random rows from the largest device to the smallest until all have `least`."""
    while True:
        sizes = [len(part) for part in parts]
        poorest, richest = int(np.argmin(sizes)), int(np.argmax(sizes))
        missing = min(least - sizes[poorest], sizes[richest] - least)
        if missing <= 0:
            return parts
        giver = random.permutation(parts[richest])
        parts[poorest] = np.concatenate([parts[poorest], giver[:missing]])
        parts[richest] = giver[missing:]
