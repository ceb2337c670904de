import pytest
import torch
from torch import nn
from torchvision.models import mobilenet_v2, mobilenet_v3_small

from common.config import ModelConfig
from common.emotions import EMOTIONS_8
from common.errors import ModelError
from models.convert import from_batchnorm
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


def batchnorm_twin(name: str) -> nn.Module:
    torch.manual_seed(1)
    twin = mobilenet_v3_small(num_classes=1000) if "v3" in name else mobilenet_v2(num_classes=1000)
    for module in twin.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 2.0)
            nn.init.uniform_(module.bias, -1.0, 1.0)
    return twin


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "mobilenet_v2_100"])
def test_a_batchnorm_checkpoint_keeps_its_convolutions_and_its_affine_weights(name: str) -> None:
    theirs = batchnorm_twin(name).state_dict()
    model = build_model(ModelConfig(name=name))
    fresh = from_batchnorm(theirs, model)
    own = model.state_dict()
    assert fresh
    assert all(n.startswith("classifier.") for n in fresh)
    for n, value in own.items():
        if n not in fresh and n != "features.0.0.weight":
            assert torch.equal(value, theirs[n]), n
    norms = [n for n, m in model.named_modules() if isinstance(m, nn.GroupNorm)]
    assert len(norms) > 20
    assert not torch.equal(own[f"{norms[0]}.weight"], torch.ones_like(own[f"{norms[0]}.weight"]))


def test_the_grey_stem_sees_what_the_colour_stem_sees_in_a_grey_picture() -> None:
    theirs = batchnorm_twin("mobilenet_v3_small")
    model = build_model(ModelConfig(name="mobilenet_v3_small", stem_stride=2))
    from_batchnorm(theirs.state_dict(), model)
    grey = torch.rand(2, 1, 48, 48)
    colour = theirs.get_submodule("features.0.0")(grey.expand(-1, 3, -1, -1))
    assert torch.allclose(model.get_submodule("features.0.0")(grey), colour, atol=1e-5)


def test_a_checkpoint_of_another_architecture_is_refused() -> None:
    with pytest.raises(ModelError, match="another architecture"):
        from_batchnorm(batchnorm_twin("mobilenet_v3_small").state_dict(), build_model(ModelConfig(name="mobilenet_v2_100")))
