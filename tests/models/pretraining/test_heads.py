import math

import pytest
import torch
import torch.nn.functional as F

from common.emotions import EMOTIONS_7, EMOTIONS_8
from common.errors import ModelError
from models.mobilenet import VARIANTS
from models.pretraining.heads import build_two_heads, head_rows, last_layer, two_headed_loss
from models.pretraining.recipe import Recipe
from tests.models.pretraining.tiny import TINY


def test_eight_classes_get_the_ferplus_head_and_fer2013s_seven_their_own() -> None:
    assert head_rows(EMOTIONS_8) == list(range(8))
    assert head_rows(EMOTIONS_7) == list(range(8, 15))


def test_rows_follow_the_order_of_the_names() -> None:
    assert head_rows(tuple(reversed(EMOTIONS_7))) == list(range(14, 7, -1))
    assert head_rows(("contempt", "neutral")) == [7, 0]
    assert head_rows(("anger", "happiness", "neutral")) == [4, 1, 0]


def test_an_unknown_class_is_refused() -> None:
    with pytest.raises(ModelError, match="knows no 'boredom'"):
        head_rows(("anger", "boredom"))


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_ends_with_both_heads(variant: str) -> None:
    network = build_two_heads(Recipe(variant=variant, stem_stride=2)).eval()
    with torch.inference_mode():
        assert network(torch.zeros(2, 1, 48, 48)).shape == (2, 15)
    assert network.get_parameter(f"{last_layer(network)}.weight").shape[0] == 15


def test_the_seed_alone_decides_the_first_weights() -> None:
    a, b, c = (build_two_heads(TINY.model_copy(update={"seed": seed})) for seed in (0, 0, 1))
    name = f"{last_layer(a)}.weight"
    assert torch.equal(a.get_parameter(name), b.get_parameter(name))
    assert not torch.equal(a.get_parameter(name), c.get_parameter(name))


def test_a_face_without_votes_counts_for_the_other_head_alone() -> None:
    recipe = Recipe(ferplus_weight=2.0, fer2013_weight=3.0, label_smoothing=0.0)
    logits = torch.randn(3, 15, generator=torch.Generator().manual_seed(0))
    votes = torch.zeros(3, 8)
    votes[0, 1], votes[2, 3], votes[2, 4] = 1.0, 0.25, 0.75
    labels = torch.tensor([0, 6, 2])
    soft = F.cross_entropy(logits[[0, 2], :8], votes[[0, 2]])
    hard = F.cross_entropy(logits[:, 8:], labels)
    assert torch.allclose(two_headed_loss(logits, votes, labels, recipe), 2 * soft + 3 * hard)


def test_a_batch_without_any_votes_has_a_finite_loss() -> None:
    loss = two_headed_loss(torch.zeros(2, 15), torch.zeros(2, 8), torch.tensor([0, 1]), Recipe())
    assert float(loss) == pytest.approx(math.log(7))
