"""The book-keeping engine: its clipped sums are Opacus's and autograd's, and nothing escapes clipping or noise."""

import threading
from collections.abc import Callable
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from common.config import ModelConfig
from common.errors import ModelError
from common.privacy.dpsgd import books, convolution, normalisation
from common.privacy.dpsgd.bookkeeping import BookkeepingGradients
from common.privacy.dpsgd.opacus_engine import OpacusGradients
from common.privacy.mechanisms import SecureRandom
from models.mobilenet import VARIANTS, build_model
from models.subset import SUBSETS, select_trainable
from tests.common.privacy.dpsgd.reference import (
    KEY,
    clipped_sum,
    example_gradients,
    faces,
    flat_gradient,
    median_norm,
    relative,
    stock_step,
    summed_loss,
)

BATCH = 4.0
NORM_BOUND = 1e-4
"""By so much a sum may be off since a large layer's norm is bounded from above, and not only computed."""
LIGHT = ("mobilenet_v3_small_050", "mobilenet_v2_025")


def engine(model: nn.Module, clipping_norm: float = 1.0, noise_multiplier: float = 0.0) -> BookkeepingGradients:
    return BookkeepingGradients(
        model,
        clipping_norm=clipping_norm,
        noise_multiplier=noise_multiplier,
        expected_batch=BATCH,
        random=SecureRandom(KEY),
    )


def kept(
    model: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    clipping_norm: float = 1.0,
    loss: Callable[[Tensor, Tensor], Tensor] = summed_loss,
) -> Tensor:
    """The clipped sum that one noiseless step leaves."""
    gradients = engine(model, clipping_norm)
    try:
        gradients.compute(inputs, targets, loss)
    finally:
        gradients.close()
    return flat_gradient(model) * BATCH


@cache
def network(name: str, stem_stride: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build_model(ModelConfig(name=name, stem_stride=stem_stride)).double()


def small_network(dtype: torch.dtype = torch.float64) -> nn.Module:
    """Each kind of layer once, with a norm large enough that the books' every way of summing is used."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1),
            nn.GroupNorm(2, 8),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=8),
            nn.Conv2d(8, 12, 1),
            nn.Hardswish(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(12, 7),
        ).to(dtype)


def check_against_opacus(name: str, stem_stride: int, subset: str, count: int, size: int) -> None:
    model = network(name, stem_stride)
    select_trainable(model, subset)
    inputs, targets = faces(count, size)
    norm = 0.9 * median_norm(example_gradients(model, inputs[:1], targets[:1])) if count else 1.0
    assert relative(kept(model, inputs, targets, norm), stock_step(model, inputs, targets, norm)) < NORM_BOUND


@pytest.mark.parametrize("count", [0, 1, 3, 8])
@pytest.mark.parametrize("subset", SUBSETS)
@pytest.mark.parametrize(("name", "stem_stride"), [(LIGHT[0], 1), (LIGHT[1], 2)])
def test_clipped_sums_are_those_of_opacus(name: str, stem_stride: int, subset: str, count: int) -> None:
    check_against_opacus(name, stem_stride, subset, count, 16)


@pytest.mark.slow
@pytest.mark.parametrize("count", [0, 1, 3, 8])
@pytest.mark.parametrize("subset", SUBSETS)
@pytest.mark.parametrize("stem_stride", [1, 2])
@pytest.mark.parametrize("name", VARIANTS)
def test_clipped_sums_are_those_of_opacus_for_every_model_at_full_size(
    name: str, stem_stride: int, subset: str, count: int
) -> None:
    check_against_opacus(name, stem_stride, subset, count, 48)


@pytest.mark.parametrize("name", LIGHT)
def test_in_single_precision_the_clipped_sum_is_the_true_one(name: str) -> None:
    model = network(name, 1)
    select_trainable(model, "full")
    inputs, targets = faces(3)
    gradients = example_gradients(model, inputs, targets)
    norm = median_norm(gradients)
    single = build_model(ModelConfig(name=name, stem_stride=1))
    single.load_state_dict(model.state_dict())
    assert relative(kept(single, inputs.float(), targets.float(), norm), clipped_sum(gradients, norm)) < 1e-5


@pytest.mark.parametrize(("module", "constant", "value"), [
    (books, "SMALL", 0),
    (books, "SMALL", 10**9),
    (convolution, "GATHERED", 1),
    (normalisation, "LARGE", 1),
])  # fmt: skip
def test_every_way_of_computing_gives_the_same_sum(
    monkeypatch: pytest.MonkeyPatch, module: object, constant: str, value: int
) -> None:
    model, (inputs, targets) = small_network(), faces(5)
    gradients = example_gradients(model, inputs, targets)
    norm = median_norm(gradients)
    monkeypatch.setattr(module, constant, value)
    assert relative(kept(model, inputs, targets, norm), clipped_sum(gradients, norm)) < 1e-9


@settings(max_examples=40, deadline=None)
@given(
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    dilation=st.integers(1, 2),
    groups=st.sampled_from([1, 2, 4]),
    bias=st.booleans(),
    count=st.integers(1, 4),
)
def test_any_convolution_gets_the_gradients_of_autograd(
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: int,
    groups: int,
    bias: bool,
    count: int,
) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(4, 4, kernel, stride, padding, dilation, groups, bias)
    check_layer(layer, torch.randn(count, 4, 9, 8))


@pytest.mark.parametrize(("layer", "shape"), [
    (nn.Linear(5, 3), (4, 5)),
    (nn.Linear(5, 3), (4, 2, 5)),
    (nn.Linear(5, 3, bias=False), (4, 30, 5)),
    (nn.Linear(80, 70), (4, 60, 80)),
    (nn.Conv2d(3, 6, 3, padding="same"), (4, 3, 6, 6)),
    (nn.Conv2d(3, 6, 3, padding=1, padding_mode="reflect"), (4, 3, 6, 6)),
    (nn.Conv2d(4, 8, 3, groups=4), (4, 4, 6, 6)),
    (nn.Conv2d(3, 6, (2, 3), padding="same", dilation=2), (4, 3, 6, 6)),
    (nn.Conv2d(4, 4, 3, groups=4, padding=1, padding_mode="circular"), (4, 4, 6, 6)),
    (nn.Conv1d(3, 6, 3), (4, 3, 9)),
    (nn.GroupNorm(2, 6), (4, 6)),
    (nn.GroupNorm(2, 6), (4, 6, 7)),
    (nn.GroupNorm(3, 6), (4, 6, 1, 1)),
    (nn.GroupNorm(3, 6), (4, 6, 2, 3, 2)),
    (nn.LayerNorm(6), (4, 5, 6)),
    (nn.InstanceNorm2d(6, affine=True), (4, 6, 3, 3)),
], ids=repr)  # fmt: skip
def test_each_kind_of_layer_gets_the_gradients_of_autograd(layer: nn.Module, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    check_layer(layer, torch.randn(shape))


def check_layer(layer: nn.Module, inputs: Tensor) -> None:
    """Before and behind it stands another trainable layer, so that the gradient by its input counts too."""
    layer, inputs = layer.double(), inputs.double()
    for p in layer.parameters():
        nn.init.normal_(p)
    width = layer(inputs).flatten(1).shape[1]
    model = nn.Sequential(nn.GroupNorm(1, inputs.shape[1]), layer, nn.Flatten(), nn.Linear(width, 2)).double()
    targets = torch.softmax(torch.randn(len(inputs), 2), 1).double()
    gradients = example_gradients(model, inputs, targets)
    norm = median_norm(gradients)
    assert relative(kept(model, inputs, targets, norm), clipped_sum(gradients, norm)) < 1e-9


def test_an_embedding_is_clipped_through_the_sampler_of_opacus() -> None:
    model = nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(12, 7)).double()
    inputs, targets = torch.randint(9, (4, 3)), faces(4)[1]
    gradients = example_gradients(model, inputs, targets)
    norm = median_norm(gradients)
    assert relative(kept(model, inputs, targets, norm), clipped_sum(gradients, norm)) < 1e-9


@pytest.mark.parametrize("parameter", ["0.weight", "0.bias", "1.weight", "1.bias", "3.weight", "4.bias", "8.bias"])
def test_one_trainable_parameter_alone_is_clipped_by_its_own_norm(parameter: str) -> None:
    model, (inputs, targets) = small_network(), faces(4)
    for name, p in model.named_parameters():
        p.requires_grad_(name == parameter)
    gradients = example_gradients(model, inputs, targets)
    norm = median_norm(gradients)
    assert relative(kept(model, inputs, targets, norm), clipped_sum(gradients, norm)) < 1e-9


def test_one_example_contributes_the_clipping_norm_over_all_parameters_together() -> None:
    model, (inputs, targets) = small_network(), faces(1)
    norm = float(example_gradients(model, inputs, targets).norm()) / 3
    assert float(kept(model, inputs, targets, norm).norm()) == pytest.approx(norm, rel=1e-4)


def test_gradients_as_small_as_the_floor_of_the_norm_are_scaled_as_opacus_does() -> None:
    model, (inputs, targets) = network(LIGHT[0], 2), faces(3, 16)
    select_trainable(model, "head")
    norm = 1e-6
    found = kept(model, inputs, targets, norm)
    assert relative(found, stock_step(model, inputs, targets, norm)) < 1e-9

    def tiny(logits: Tensor, labels: Tensor) -> Tensor:
        return summed_loss(logits, labels) * 1e-6

    gradients = example_gradients(model, inputs, targets, tiny)
    assert relative(kept(model, inputs, targets, norm, tiny), clipped_sum(gradients, norm)) < 1e-9
    assert relative(found, clipped_sum(gradients, norm)) > 0.1


def test_an_example_without_gradient_adds_nothing() -> None:
    model, (inputs, targets) = small_network(), faces(3)
    without = targets.clone()
    without[1] = 0.0
    others = kept(model, inputs[[0, 2]], targets[[0, 2]])
    assert relative(kept(model, inputs, without), others) < 1e-9


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("spread", ["pixel", "image"])
def test_an_example_with_a_non_finite_gradient_adds_nothing_and_spoils_nobody(poison: float, spread: str) -> None:
    model, (inputs, targets) = small_network(torch.float32), faces(4, dtype=torch.float32)
    expected = kept(model, inputs[[0, 1, 3]], targets[[0, 1, 3]])
    if spread == "pixel":
        inputs[2, 0, 5, 5] = poison
    else:
        inputs[2] = poison
    assert not bool(example_gradients(model, inputs, targets).isfinite().all(1)[2])
    assert relative(kept(model, inputs, targets), expected) < 1e-6


def test_a_non_finite_activation_with_zero_gradient_does_not_leak() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2, bias=False)).double()
    inputs = torch.randn(3, 3, dtype=torch.float64)
    targets = torch.softmax(torch.randn(3, 2, dtype=torch.float64), 1)
    expected = kept(model, inputs[:2], targets[:2])
    inputs[2] = float("inf")
    targets[2] = 0.0

    def without_last(logits: Tensor, labels: Tensor) -> Tensor:
        return summed_loss(logits[:2], labels[:2])

    assert relative(kept(model, inputs, targets, loss=without_last), expected) < 1e-9


def test_an_example_whose_norm_overflows_adds_no_more_than_the_others() -> None:
    model, (inputs, targets) = small_network(torch.float32), faces(3, dtype=torch.float32)
    targets[1] *= 1e25
    assert float(kept(model, inputs, targets, 1.0).norm()) <= 3.0


@pytest.mark.parametrize(
    "model", [small_network(), nn.Sequential(nn.Flatten(), nn.Linear(576, 7)).double()], ids=["net", "linear"]
)
def test_a_batch_of_non_finite_examples_leaves_zero(model: nn.Module) -> None:
    inputs, targets = faces(2)
    assert not bool(kept(model, inputs * float("nan"), targets).any())


def test_an_empty_batch_gives_noise_alone() -> None:
    model, (inputs, targets) = small_network(torch.float32), faces(0, dtype=torch.float32)
    gradients = engine(model, clipping_norm=2.0, noise_multiplier=3.0)
    gradients.compute(inputs, targets, summed_loss)
    gradients.close()
    found = flat_gradient(model)
    assert torch.equal(found, SecureRandom(KEY).normal(len(found), 3.0 * 2.0 / BATCH))


def test_noise_of_sigma_times_the_norm_over_the_expected_batch_is_added_once_over_all_parameters() -> None:
    model, (inputs, targets) = small_network(torch.float32), faces(3, dtype=torch.float32)
    gradients = engine(model, clipping_norm=2.0, noise_multiplier=3.0)
    gradients.compute(inputs, targets, summed_loss)
    gradients.close()
    noisy = flat_gradient(model)
    noise = SecureRandom(KEY).normal(len(noisy), 3.0 * 2.0 / BATCH)
    assert relative(noisy, noise + kept(model, inputs, targets, 2.0) / BATCH) < 1e-6


def test_each_step_draws_fresh_noise() -> None:
    model, (inputs, targets) = small_network(torch.float32), faces(0, dtype=torch.float32)
    gradients = engine(model, noise_multiplier=1.0)
    gradients.compute(inputs, targets, summed_loss)
    first = flat_gradient(model)
    gradients.compute(inputs, targets, summed_loss)
    gradients.close()
    assert not bool(torch.isclose(first, flat_gradient(model)).any())


def test_from_the_same_keystream_it_leaves_what_the_opacus_engine_leaves() -> None:
    model, (inputs, targets) = small_network(torch.float32), faces(5, dtype=torch.float32)
    found = []
    for kind in (BookkeepingGradients, OpacusGradients):
        gradients = kind(model, clipping_norm=0.5, noise_multiplier=0.7, expected_batch=BATCH, random=SecureRandom(KEY))
        for _ in range(2):
            gradients.compute(inputs.clone(), targets, summed_loss)
        gradients.close()
        found.append(flat_gradient(model))
    assert relative(found[0], found[1]) < 1e-5


def test_a_second_step_starts_clean() -> None:
    model, (inputs, targets) = small_network(), faces(4)
    gradients = engine(model)
    gradients.compute(inputs, targets, summed_loss)
    gradients.compute(inputs[:2], targets[:2], summed_loss)
    gradients.close()
    assert relative(flat_gradient(model) * BATCH, kept(model, inputs[:2], targets[:2])) < 1e-12


def test_after_a_failed_step_the_next_is_right_and_closing_restores_the_model() -> None:
    model, (inputs, targets) = small_network(), faces(4)
    expected = kept(model, inputs, targets)
    gradients = engine(model)

    def failing(logits: Tensor, labels: Tensor) -> Tensor:
        raise ArithmeticError

    with pytest.raises(ArithmeticError):
        gradients.compute(inputs, targets, failing)
    assert all(p.grad is None for p in model.parameters())
    gradients.compute(inputs, targets, summed_loss)
    assert relative(flat_gradient(model) * BATCH, expected) < 1e-12
    with pytest.raises(RuntimeError):
        gradients.compute(inputs[:, :, 0], targets, summed_loss)
    gradients.close()
    gradients.close()
    assert not any("forward" in layer.__dict__ for layer in model.modules())


def test_a_closed_engine_says_so() -> None:
    gradients = engine(small_network())
    gradients.close()
    with pytest.raises(ModelError, match="closed"):
        gradients.compute(*faces(1), summed_loss)


def test_between_steps_the_model_is_its_own() -> None:
    model, (inputs, targets) = small_network(), faces(2)
    expected = example_gradients(model, inputs, targets)
    gradients = engine(model)
    gradients.compute(inputs, targets, summed_loss)
    assert torch.equal(example_gradients(model, inputs, targets), expected)
    gradients.close()


def test_two_models_in_two_threads_do_not_disturb_each_other() -> None:
    models = [small_network(), small_network()]
    batches = [faces(5), faces(6)]
    expected = [kept(model, *batch, 0.1) for model, batch in zip(models, batches, strict=True)]
    found: dict[int, list[Tensor]] = {0: [], 1: []}
    barrier = threading.Barrier(2)

    def work(which: int) -> None:
        gradients = engine(models[which], 0.1)
        for _ in range(5):
            barrier.wait(timeout=10)
            gradients.compute(*batches[which], summed_loss)
            found[which].append(flat_gradient(models[which]) * BATCH)
        gradients.close()

    threads = [threading.Thread(target=work, args=(which,)) for which in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert all(len(sums) == 5 for sums in found.values())
    assert all(relative(vector, expected[which]) < 1e-9 for which, sums in found.items() for vector in sums)


def test_frozen_layers_are_left_alone() -> None:
    model = network(LIGHT[0], 2)
    select_trainable(model, "head")
    model.zero_grad()
    gradients = engine(model)
    changed = [name for name, layer in model.named_modules() if "forward" in layer.__dict__]
    outputs: list[bool] = []
    handle = model.get_submodule("features").register_forward_hook(lambda *call: outputs.append(call[2].requires_grad))
    gradients.compute(*faces(2, 16), summed_loss)
    handle.remove()
    gradients.close()
    assert changed == ["classifier.0", "classifier.3"]
    assert outputs == [False]
    assert all(p.grad is None for p in model.get_submodule("features").parameters())


def test_a_model_held_by_another_engine_is_refused() -> None:
    model = small_network()
    first = engine(model)
    with pytest.raises(ModelError, match="Layer 0 already runs the forward of another engine"):
        engine(model)
    first.close()
    engine(model).close()


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(7))

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs * self.scale


def test_an_unknown_layer_is_refused_by_name_and_the_model_stays_as_it_was() -> None:
    model = nn.Sequential(nn.Linear(4, 7), Scaled())
    with pytest.raises(ModelError, match=r"layer 1 \(Scaled\).*Use the Opacus engine"):
        engine(model)
    assert not any("forward" in layer.__dict__ for layer in model.modules())


def test_an_unknown_layer_that_is_frozen_is_no_hindrance() -> None:
    model = nn.Sequential(nn.Linear(4, 7), Scaled().requires_grad_(False)).double()
    inputs, targets = torch.randn(3, 4, dtype=torch.float64), faces(3)[1]
    expected = clipped_sum(example_gradients(model, inputs, targets), 1.0)
    assert relative(kept(model, inputs, targets), expected) < 1e-9


class Twice(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.first, self.second, self.how = nn.Linear(4, 4), nn.Linear(4, 4), how
        if how == "shared":
            self.second.weight = self.first.weight

    def forward(self, inputs: Tensor) -> Tensor:
        if self.how == "module":
            return self.first(self.first(inputs)) + self.second(inputs)
        if self.how == "functional":
            return self.second(self.first(inputs)) + F.linear(inputs, self.first.weight)
        if self.how == "pixels":
            return self.second(self.first(inputs).reshape(-1, 2).repeat(1, 2)).reshape(len(inputs), -1)
        return self.second(self.first(inputs))


@pytest.mark.parametrize(("how", "sentence"), [
    ("module", "Layer first is used twice in one pass"),
    ("functional", "Parameter first.weight is used outside its own layer"),
    ("pixels", "saw 32 rows for 16 examples"),
    ("shared", "Layers first and second share a parameter"),
])  # fmt: skip
def test_a_parameter_used_in_two_places_or_on_mixed_rows_is_refused(how: str, sentence: str) -> None:
    model = Twice(how)
    inputs = torch.randn(3, 4)
    with pytest.raises(ModelError, match=sentence):
        kept(model, inputs, inputs, loss=lambda outputs, _: outputs.square().sum())
    assert all(p.grad is None for p in model.parameters())
    assert not any("forward" in layer.__dict__ for layer in model.modules())


def test_a_model_without_trainable_parameters_is_refused() -> None:
    with pytest.raises(ModelError, match="No parameter of the model is trainable"):
        engine(small_network().requires_grad_(False))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_layout_of_the_inputs_does_not_matter(layout: torch.memory_format) -> None:
    model, (inputs, targets) = small_network(), faces(3)
    expected = clipped_sum(example_gradients(model, inputs, targets), 1.0)
    assert relative(kept(model, inputs.contiguous(memory_format=layout), targets), expected) < 1e-9


@pytest.mark.parametrize("kind", [BookkeepingGradients, OpacusGradients])
@pytest.mark.parametrize("augmentations", [1, 2, 3])
@pytest.mark.parametrize("count", [0, 1, 4])
def test_the_gradients_of_an_examples_augmentations_are_averaged_before_it_is_clipped(
    kind: type[BookkeepingGradients] | type[OpacusGradients], augmentations: int, count: int
) -> None:
    model, (inputs, targets) = small_network(), faces(count * augmentations)
    norm = 1.0
    expected = torch.zeros(sum(p.numel() for p in model.parameters()), dtype=torch.float64)
    if count:
        rows = example_gradients(model, inputs, targets)
        means = rows.view(count, augmentations, -1).mean(1)
        norm = median_norm(means)
        expected = clipped_sum(means, norm)
    gradients = kind(model, clipping_norm=norm, noise_multiplier=0.0, expected_batch=BATCH, random=SecureRandom(KEY))
    try:
        gradients.compute(inputs, targets, summed_loss, augmentations)
    finally:
        gradients.close()
    assert relative(flat_gradient(model) * BATCH, expected) < 1e-5


@pytest.mark.parametrize("name", LIGHT)
def test_augmentations_of_a_whole_network_are_those_of_the_reference(name: str) -> None:
    """Unmodified Opacus sees each row; what its hooks found is averaged and clipped here."""
    model = network(name, 2)
    select_trainable(model, "full")
    inputs, targets = faces(6, 16)
    means = example_gradients(model, inputs, targets).view(3, 2, -1).mean(1)
    norm = 0.9 * median_norm(means)
    gradients = engine(model, norm)
    try:
        gradients.compute(inputs, targets, summed_loss, 2)
    finally:
        gradients.close()
    assert relative(flat_gradient(model) * BATCH, clipped_sum(means, norm)) < NORM_BOUND


def test_rows_that_are_no_multiple_of_the_augmentations_are_refused() -> None:
    gradients = engine(small_network())
    with pytest.raises(ModelError, match="5 rows are not 2 augmentations"):
        gradients.compute(*faces(5), summed_loss, 2)


@settings(max_examples=150, deadline=None)
@given(
    places=st.sampled_from([1, 2, 4, 9]),
    shift=st.sampled_from([0.0, 1.0, 1e2, 1e4, 1e6]),
    low=st.integers(-30, 12),
    high=st.integers(-30, 18),
    seed=st.integers(0, 2**16),
)
def test_whatever_the_weights_make_of_it_a_norm_is_never_too_small(
    places: int, shift: float, low: int, high: int, seed: int
) -> None:
    """A server could choose them so that the terms of a norm cancel or underflow, and the gradient passes as if it were short."""
    generator = torch.Generator().manual_seed(seed)
    rows = (torch.randn(3, places, 40, generator=generator) + shift) * 10.0**low
    grads = torch.randn(3, places, 60, generator=generator)
    grads = (grads - grads.mean(1, keepdim=True) * (places > 1)) * 10.0**high
    account = books.Books()
    account.start(3)
    account.outer(nn.Parameter(torch.zeros(60, 40)), rows, grads)
    assert account._outer, "it was formed: these shapes test nothing"
    true = torch.bmm(grads.double().transpose(1, 2), rows.double()).flatten(1).norm(dim=1)
    (square,) = account._squares
    far_below_any_clip = 1e-12  # which is 1e-6 at least
    assert ((square.double().sqrt() + far_below_any_clip >= true * (1 - 1e-5)) | ~square.isfinite()).all()


def test_a_servers_weights_cannot_make_cancel_what_would_be_clipped() -> None:
    """Activations of 10,000 and a little, and gradients that add up to nothing: 80 times the norm came through."""
    torch.manual_seed(1)
    model = build_model(ModelConfig(stem_stride=2))
    select_trainable(model, "last-block")
    last, first = model.get_submodule("features")[-1], model.get_submodule("classifier")[0]
    assert isinstance(last, nn.Sequential)
    with torch.no_grad():
        norms = [module for module in model.get_submodule("features")[-2].modules() if isinstance(module, nn.GroupNorm)]
        norms[-1].bias.fill_(1e4)
        for parameter in (last[0].weight, last[1].weight, last[1].bias):
            alike = parameter.view(72, 8, *parameter.shape[1:])
            alike.copy_(alike[:, :1].expand_as(alike).clone())
        alike = first.weight.view(1024, 72, 8)
        alike.copy_(alike[:, :, :1].expand_as(alike).clone())
        last[0].weight.sub_(last[0].weight.mean(1, keepdim=True)).mul_(3e-4)
        last[1].weight.fill_(1.0)
        last[1].bias.zero_()
        first.weight.mul_(300)
    for number in range(8):
        one = kept(model, torch.randn(1, 1, 48, 48), torch.eye(7)[[number % 7]], 0.1)
        assert float(one.norm()) <= 0.1 * (1 + 1e-4)
