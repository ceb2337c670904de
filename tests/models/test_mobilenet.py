import pytest
import torch
from torch import nn

from common.config import ModelConfig
from common.emotions import EMOTIONS_8
from common.errors import ModelError
from models.isolation import refuse_mixed_examples
from models.mobilenet import VARIANTS, build_model
from models.subset import SUBSETS, select_trainable

SMALL = "mobilenet_v2_025"


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("stride", [1, 2])
def test_every_variant_takes_grey_faces_and_keeps_examples_apart(name: str, stride: int) -> None:
    model = build_model(ModelConfig(name=name, stem_stride=stride, classes=EMOTIONS_8))
    assert model(torch.zeros(2, 1, 48, 48)).shape == (2, 8)
    assert not list(model.buffers())
    refuse_mixed_examples(model)


def test_stride_one_keeps_four_times_the_pixels_of_stride_two() -> None:
    sizes = [
        build_model(ModelConfig(name="mobilenet_v3_small", stem_stride=stride)).get_submodule("features")(
            torch.zeros(1, 1, 48, 48)
        )
        for stride in (1, 2)
    ]
    assert [tuple(s.shape[2:]) for s in sizes] == [(3, 3), (2, 2)]


def test_a_seed_gives_the_same_weights() -> None:
    models = []
    for _ in range(2):
        torch.manual_seed(5)
        models.append(build_model(ModelConfig(name=SMALL)))
    assert all(torch.equal(a, b) for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True))


def test_an_unknown_model_is_one_sentence() -> None:
    with pytest.raises(ModelError, match="There is no model 'resnet'; choose one of mobilenet"):
        build_model(ModelConfig(name="resnet"))


class MixesByMean(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x - x.mean(0, keepdim=True)).flatten(1)


@pytest.mark.parametrize(
    "layers",
    [
        nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten()),
        nn.Sequential(nn.Conv2d(1, 4, 3), nn.SyncBatchNorm(4), nn.Flatten()),
        nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4, affine=False).eval(), nn.Flatten()),
    ],
)
def test_batchnorm_is_refused_with_a_sentence_that_says_why(layers: nn.Module) -> None:
    with pytest.raises(ModelError, match=r"mixes the examples of a batch.*GroupNorm"):
        refuse_mixed_examples(layers)


def test_any_other_layer_that_mixes_examples_is_found_by_the_probe() -> None:
    with pytest.raises(ModelError, match="depends on another face"):
        refuse_mixed_examples(MixesByMean())


def test_the_probe_leaves_torchs_generator_alone() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    refuse_mixed_examples(build_model(ModelConfig(name=SMALL, dropout=0.5)))
    after = torch.get_rng_state()
    torch.manual_seed(0)
    build_model(ModelConfig(name=SMALL, dropout=0.5))
    assert torch.equal(after, torch.get_rng_state())
    assert not torch.equal(before, after)


@pytest.mark.parametrize("name", ["mobilenet_v3_small", SMALL])
def test_subsets_grow_from_head_to_full(name: str) -> None:
    model = build_model(ModelConfig(name=name))
    chosen = {subset: set(select_trainable(model, subset)) for subset in SUBSETS}
    assert chosen["head"] < chosen["last-block"] < chosen["full"]
    assert chosen["full"] == {n for n, _ in model.named_parameters()}
    assert all(n.startswith("classifier.") for n in chosen["head"])
    last = {"mobilenet_v3_small": "classifier.3", SMALL: "classifier.1"}[name]
    assert chosen["last-layer"] == {f"{last}.weight", f"{last}.bias"}


def test_a_subset_freezes_the_rest() -> None:
    model = build_model(ModelConfig(name=SMALL))
    names = set(select_trainable(model, "head"))
    assert {n for n, p in model.named_parameters() if p.requires_grad} == names


def test_an_unknown_subset_is_one_sentence() -> None:
    with pytest.raises(ModelError, match="There is no trainable subset 'tail'"):
        select_trainable(build_model(ModelConfig(name=SMALL)), "tail")
