from pathlib import Path
from typing import Any

from common.config import RunConfig, make_config
from simulation.choices import describe, differences, promises


def differing(*values: dict[str, Any]) -> list[dict[str, str]]:
    found = differences({str(number): make_config(each) for number, each in enumerate(values)})
    return [found[str(number)] for number in range(len(values))]


def test_a_description_names_the_main_choices() -> None:
    assert (
        describe(RunConfig()) == "drawn faces, 20 clients, dirichlet, alpha 0.3, record-level epsilon 8, 20 rounds, fedavg, full"
    )


def test_a_description_of_several_runs_names_what_they_have_in_common() -> None:
    other = make_config({"privacy": {"private": False}, "server": {"rounds": 5}})
    assert describe(RunConfig(), other) == "drawn faces, 20 clients, dirichlet, alpha 0.3, fedavg, full"


def test_only_a_run_that_promises_nothing_is_called_non_private() -> None:
    whole = make_config({"privacy": {"private": False}, "client_level": {"mode": "central", "epsilon": 2}})
    assert promises(whole) == ("client-level epsilon 2 (central)",)
    assert "non-private" not in describe(whole)
    assert "non-private" in describe(make_config({"privacy": {"private": False}}))


def test_equal_runs_differ_in_nothing() -> None:
    assert differing({}, {}) == [{}, {}]


def test_runs_differ_by_the_dotted_names_of_their_settings() -> None:
    first = {
        "server": {"strategy": "fedadam"},
        "train": {"loss": "class-balanced", "class_counts": COUNTS},
        "upload": {"secure": False},
    }
    assert differing(first, {"init": "base", "train": {"local_layers": "head"}}) == [
        {
            "init": "scratch",
            "train.loss": "class-balanced",
            "train.class_counts": "anger=4,disgus…71,neutral=4965",
            "train.local_layers": "none",
            "server.strategy": "fedadam",
            "upload.secure": "false",
        },
        {
            "init": "base",
            "train.loss": "cross-entropy",
            "train.class_counts": "none",
            "train.local_layers": "head",
            "server.strategy": "fedavg",
            "upload.secure": "true",
        },
    ]


COUNTS = {"anger": 4, "disgust": 436, "fear": 4097, "happiness": 7215, "sadness": 4830, "surprise": 3171, "neutral": 4965}


def test_an_epsilon_that_holds_for_nobody_is_not_shown() -> None:
    first, second = differing({"client_level": {"mode": "central", "epsilon": 2}}, {"privacy": {"private": False, "epsilon": 3}})
    assert first == {
        "privacy.private": "true",
        "privacy.epsilon": "8",
        "client_level.mode": "central",
        "client_level.epsilon": "2",
    }
    assert second == {"privacy.private": "false", "client_level.mode": "none"}


def test_values_are_cut_only_where_they_stay_apart() -> None:
    def inits(*paths: str) -> list[str]:
        return [values["init"] for values in differing(*({"init": path} for path in paths))]

    near = "/somewhere/far/from/here/and/further/a/registry", "/somewhere/far/from/here/and/further/b/registry"
    assert inits(*near) == ["/somewhere/far…ther/a/registry", "/somewhere/far…ther/b/registry"]
    apart = "/somewhere/far/from/one/and/further/the/registry", "/somewhere/far/from/two/and/further/the/registry"
    assert inits(*apart) == list(apart)
    assert inits(str(Path.cwd() / "runs" / "a"), "base") == ["runs/a", "base"]
