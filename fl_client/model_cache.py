"""The networks of a device, or of a simulation's devices: made and checked once. `fl_client.device` writes weights into them."""

import logging
import threading

import torch
from torch import nn

from common.config import ModelConfig
from common.privacy.dpsgd.bookkeeping import recorded_is_steady
from common.privacy.dpsgd.rows import at_once, insist, is_steady
from models.frozen import FeatureCache
from models.isolation import refuse_mixed_examples
from models.mobilenet import build_model
from models.subset import select_trainable

log = logging.getLogger("emofl.client")

INPUT = (1, 48, 48)
"""Of the faces with which a network is tried."""


class ModelCache(threading.local):
    """One network per worker thread and configuration, never one per device; weights are written in before each use."""

    def __init__(self) -> None:
        self._models: dict[ModelConfig, nn.Module] = {}
        self._tried: set[tuple[ModelConfig, str]] = set()
        self.features = FeatureCache()

    def get(self, config: ModelConfig) -> nn.Module:
        """The network of `config`, its trainable subset selected."""
        if config not in self._models:
            model = build_model(config)
            refuse_mixed_examples(model)
            self._models = {config: model}
        select_trainable(self._models[config], config.trainable)
        return self._models[config]

    def try_rows(self, config: ModelConfig, engine: str) -> None:
        """Find out, once, whether on this processor an engine's numbers for a face depend on how many others there are."""
        if (config, engine) in self._tried:
            return
        model = self.get(config)
        with torch.random.fork_rng(devices=[]):
            steady = is_steady(model, INPUT) if engine == "opacus" else recorded_is_steady(model, INPUT)
        if not steady:
            insist()
            log.warning("On this processor private training takes %d faces at a time, and longer.", at_once())
        self._tried.add((config, engine))
