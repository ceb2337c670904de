from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from common.config import (
    ClientLevelConfig,
    ClientLevelRequest,
    EvaluationConfig,
    RunConfig,
    ServerConfig,
    make_config,
    named_counts,
    read_config,
)
from common.errors import ConfigError
from common.messages import TrainRequest

BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")


def test_defaults_are_private() -> None:
    assert RunConfig().privacy.private
    assert RunConfig().model.dropout == 0


def test_a_run_stored_before_devices_had_a_choice_of_optimiser_is_still_the_same_run() -> None:
    """A server that is started again goes on with its run only if the settings are equal."""
    stored = RunConfig().model_dump(mode="json")
    assert stored["train"].pop("optimiser") == "sgd"
    assert stored["train"]["learning_rate"] == 0.05
    assert make_config(stored) == RunConfig()


def test_configuration_is_frozen() -> None:
    with pytest.raises(ValidationError):
        RunConfig().privacy.epsilon = 100.0  # type: ignore[misc]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"privcy": {}}, "privcy is not a setting"),
        ({"privacy": {"epsilom": 3}}, "privacy.epsilom is not a setting"),
        ({"privacy": {"epsilon": 0}}, "privacy.epsilon is wrong"),
        ({"privacy": {"epsilon": float("nan")}}, "privacy.epsilon is wrong"),
        ({"privacy": {"delta": 1}}, "privacy.delta is wrong"),
        ({"privacy": {"clipping_norm": 1e-45}}, "privacy.clipping_norm is wrong"),
        ({"privacy": {"clipping_norm": 1e30}}, "privacy.clipping_norm is wrong"),
        ({"server": {"strategy": "krum"}}, "server.strategy is wrong"),
        ({"server": {"cohort": 1}}, "cohort 1 can never give min_replies 2"),
        ({"server": {"cohort": 40_000}, "data": {"clients": 50_000}}, "at most 32768 devices"),
        ({"server": {"max_update_norm": 1e9}}, "server.max_update_norm is wrong"),
        ({"model": {"classes": ["anger", "joy"]}}, "classes must be"),
        ({"model": {"classes": ["anger", "anger"]}}, "classes must be"),
        ({"data": {"alpha": -1}}, "data.alpha is wrong"),
        ({"data": {"drawn": 10**14}}, "data.drawn is wrong: Input should be less than or equal to 1000000"),
        ({"train": {"local_epochs": 1e308}}, "train.local_epochs is wrong"),
        ({"train": {"learning_rate": 1e308}}, "train.learning_rate is wrong: Input should be less than or equal to 1000000"),
        ({"server": {"server_learning_rate": 1e308}}, "server.server_learning_rate is wrong"),
        ({"server": {"rounds": 1_000_001}}, "server.rounds is wrong: Input should be less than or equal to 1000000"),
        ({"client_level": {"epsilon": 5000}}, "client_level.epsilon is wrong: Input should be less than or equal to 1000"),
        ({"evaluation": {"noise_multiplier": 1e7}}, "evaluation.noise_multiplier is wrong"),
    ],
)
def test_a_wrong_setting_is_named_in_one_sentence(values: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make_config(values)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("setting", "wire"),
    [
        ((ServerConfig, "rounds"), (TrainRequest, "rounds")),
        ((ServerConfig, "rounds"), (TrainRequest, "participations")),
        ((ServerConfig, "rounds"), (ClientLevelRequest, "rounds")),
        ((EvaluationConfig, "noise_multiplier"), (TrainRequest, "evaluation_noise")),
        ((EvaluationConfig, "noise_multiplier"), (TrainRequest, "histogram_noise")),
        *(((ClientLevelConfig, name), (ClientLevelRequest, name)) for name in ("epsilon", "delta", "clip", "bits")),
    ],
)
def test_whatever_a_run_may_be_set_to_a_message_can_say(
    setting: tuple[type[BaseModel], str], wire: tuple[type[BaseModel], str]
) -> None:
    def bounds(model: type[BaseModel], name: str) -> dict[str, Any]:
        schema = model.model_json_schema()["properties"][name]
        number = schema.get("anyOf", [schema])[0]
        return {key: value for key, value in number.items() if key in ("type", *BOUNDS)}

    assert bounds(*setting) == bounds(*wire)
    assert set(bounds(*setting)) & set(BOUNDS)


def test_the_rest_of_a_request_is_the_run_s_own_settings() -> None:
    for name, field in TrainRequest.model_fields.items():
        if name in RunConfig.model_fields and name != "client_level":
            assert field.annotation is RunConfig.model_fields[name].annotation, name


def test_a_toml_file_sets_what_it_names_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text("seed = 3\n[privacy]\nepsilon = 2.5\n")
    config = make_config(read_config(path))
    assert (config.seed, config.privacy.epsilon, config.privacy.delta) == (3, 2.5, RunConfig().privacy.delta)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a = ", "not valid TOML"),
        (b"\xff\xfe", "not valid TOML"),
        (b"a = " + b"9" * 10_000, "not valid TOML"),
        (b"a = " + b"[" * 100_000, "nested too deeply"),
        (b"a." * 10_000 + b"a = 1", "nested too deeply"),
        (b'init = "x\\u0000y"', "holds a NUL character"),
        (b'a = [{"\\u0000" = 1}]', "holds a NUL character"),
        (b"#" * (2**20 + 1), "larger than 1 MiB"),
    ],
)
def test_a_broken_toml_file_is_one_sentence(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "run.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=words):
        read_config(path)


def test_a_file_without_end_is_one_sentence() -> None:
    with pytest.raises(ConfigError, match="/dev/zero is larger than 1 MiB"):
        read_config(Path("/dev/zero"))


def test_a_missing_toml_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_config(tmp_path / "none.toml")


def test_a_configuration_survives_json() -> None:
    config = make_config({"model": {"trainable": "head"}, "data": {"path": "/x/fer2013.csv"}})
    assert make_config(config.model_dump(mode="json")) == config


@pytest.mark.parametrize("precision", ["float16", "int8"])
def test_secure_sums_have_no_half_floats_and_no_bytes(precision: str) -> None:
    with pytest.raises(ConfigError, match="secure sums have float32 or int16"):
        make_config({"upload": {"precision": precision}})
    assert make_config({"upload": {"precision": precision, "secure": False}}).upload.precision == precision
    assert make_config({"upload": {"precision": "int16"}}).upload.secure


def test_counts_are_written_as_names_and_numbers() -> None:
    assert named_counts("happiness=7185, fear = 4070.5") == {"happiness": 7185.0, "fear": 4070.5}
    for text in (
        "happiness",
        "happiness=",
        "=3",
        "fear=1,fear=2",
        "fear=-1",
        "fear=nan",
        "fear=1,",
        "",
        "fear=inf",
        "fear=1e-320",
        "fear=1e13",
    ):
        with pytest.raises(ConfigError, match="is no count"):
            named_counts(text)
    for count, why in ((float("inf"), "finite number"), (1e-320, "greater than or equal"), (1e13, "less than or equal")):
        with pytest.raises(ConfigError, match=why):
            make_config({"train": {"class_counts": {"fear": count}}})
