from pathlib import Path

import pytest

from common.errors import ConfigError
from models.pretraining.recipe import DEFAULT_RECIPE, Recipe, read_recipe


def test_the_recipe_file_says_what_the_defaults_are() -> None:
    assert read_recipe(DEFAULT_RECIPE) == Recipe()


def test_a_change_wins_over_the_file_and_none_is_no_change() -> None:
    assert read_recipe(variant="mobilenet_v2_tiny", images=None).variant == "mobilenet_v2_tiny"
    assert read_recipe(images=5).images == 5


def test_length_and_bookkeeping_are_no_part_of_a_recipes_identity() -> None:
    assert Recipe(images=5, save_every=6, validate_every=7).identity() == Recipe().identity()
    assert Recipe(weight_decay=0.1).identity() != Recipe().identity()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("learning_rate = -1", "learning_rate in the recipe"),
        ("learning_speed = 1", "it is not a setting"),
        ('variant = "resnet50"', "There is no variant 'resnet50'"),
        ("variant =", "is not valid TOML"),
        (f"ema = {'[' * 5000}", "nested too deeply"),
        ("ema = 1.0", "ema in the recipe"),
    ],
)
def test_a_wrong_recipe_is_refused_in_a_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=sentence):
        read_recipe(path)


def test_a_missing_recipe_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_recipe(tmp_path / "none.toml")
