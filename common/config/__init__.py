"""Every setting of a run, with its default, in one place. Frozen; unknown keys are refused.

A `RunConfig` is what `fl-sim run` and a server start from, what a run folder stores as `config.json`, and what resumption reads.
"""

from common.config.base import RoundCount, Settings
from common.config.data import DataConfig, Scheme
from common.config.model import ModelConfig, Trainable
from common.config.nested import merge_settings, nest_settings, read_config
from common.config.privacy import ClientLevelConfig, ClientLevelRequest, ClientMode, CountNoise, EvaluationConfig, PrivacyConfig
from common.config.run import RunConfig, make_config
from common.config.server import Precision, ServerConfig, Strategy, UploadConfig
from common.config.training import (
    LARGEST_COUNT,
    LEARNING_RATES,
    LEAST_COUNT,
    ClassCount,
    LossName,
    Optimiser,
    TrainConfig,
    named_counts,
)

__all__ = [
    "LARGEST_COUNT",
    "LEARNING_RATES",
    "LEAST_COUNT",
    "ClassCount",
    "ClientLevelConfig",
    "ClientLevelRequest",
    "ClientMode",
    "CountNoise",
    "DataConfig",
    "EvaluationConfig",
    "LossName",
    "ModelConfig",
    "Optimiser",
    "Precision",
    "PrivacyConfig",
    "RoundCount",
    "RunConfig",
    "Scheme",
    "ServerConfig",
    "Settings",
    "Strategy",
    "TrainConfig",
    "Trainable",
    "UploadConfig",
    "make_config",
    "merge_settings",
    "named_counts",
    "nest_settings",
    "read_config",
]
