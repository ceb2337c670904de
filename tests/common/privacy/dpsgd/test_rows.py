"""No face's numbers depend on how many others there are, however a server chooses the weights."""

import threading
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from common.config import ModelConfig
from common.emotions import EMOTIONS_7
from common.errors import ModelError
from common.privacy.dpsgd import bookkeeping
from common.privacy.dpsgd import rows as module
from common.privacy.dpsgd.bookkeeping import BookkeepingGradients, even_examples, recorded_is_steady
from common.privacy.dpsgd.opacus_engine import OpacusGradients
from common.privacy.dpsgd.rows import ALWAYS, LEAST, even_rows, filled, is_steady
from common.privacy.mechanisms import SecureRandom
from models.evaluate import predict
from models.faces.faceset import FaceSet, one_hot
from models.frozen import FeatureCache
from models.mobilenet import build_model
from models.preprocess import Preprocessing
from models.subset import select_trainable
from tests.common.privacy.dpsgd.reference import faces, relative, summed_loss

SMALL = ModelConfig(name="mobilenet_v3_small_050", stem_stride=2)


@given(st.integers(0, 500), st.integers(1, 32))
def test_rows_are_enough_and_the_same_for_each_thread(examples: int, augmentations: int) -> None:
    rows, threads = even_rows(examples), torch.get_num_threads()
    assert rows == 0 if examples == 0 else rows >= max(examples, LEAST * threads)
    assert rows % threads == 0
    whole = even_examples(examples, augmentations)
    assert whole >= examples
    assert even_rows(whole * augmentations) == whole * augmentations


@pytest.fixture
def unsteady(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """As if this processor were."""
    monkeypatch.setattr(module, "_uneven", threading.Event())
    return module.insist


def test_where_the_number_shows_opacus_refuses(unsteady: Callable[[], None]) -> None:
    unsteady()
    with pytest.raises(ModelError, match="On this processor"):
        OpacusGradients(build_model(SMALL), clipping_norm=1.0, noise_multiplier=0.0, expected_batch=1.0, random=SecureRandom())


def test_where_the_number_shows_all_the_same_there_are_whole_chunks(unsteady: Callable[[], None]) -> None:
    unsteady()
    threads = torch.get_num_threads()
    assert {even_rows(rows) for rows in range(1, 65)} == {ALWAYS * threads}
    assert even_rows(65) % ALWAYS == even_rows(65) % threads == 0 == even_rows(0)
    for augmentations in (1, 3, 7):
        whole = even_examples(ALWAYS, augmentations)
        assert even_rows(whole * augmentations) == whole * augmentations


def test_blank_rows_come_behind_and_keep_the_order_of_memory() -> None:
    given_rows = torch.randn(3, 4, 5, 5).contiguous(memory_format=torch.channels_last)
    whole = filled(given_rows, 16)
    assert torch.equal(whole[:3], given_rows)
    assert not whole[3:].any()
    assert whole.is_contiguous(memory_format=torch.channels_last)
    assert filled(given_rows, 3) is given_rows


def decided_by_rounding() -> nn.Module:
    """Weights that turn the last bit of a linear layer into a class: all faces have the same features, one unit of the next layer
    is 0 in batches of three rows and not in larger ones, and the layer behind blows that up.
    """
    torch.manual_seed(1)
    model = build_model(ModelConfig(name="mobilenet_v3_small", stem_stride=2)).train()
    first, last = model.get_submodule("classifier")[0], model.get_submodule("classifier")[3]
    norm = model.get_submodule("features")[12][1]
    with torch.no_grad():
        norm.weight.zero_()
        norm.bias.fill_(3.0)
        features = model.get_submodule("features")(torch.randn(1, 1, 48, 48)).mean((2, 3))[0]
        weights = torch.randn(1024, 576) * 1e4

        def unit(rows: int, shift: Tensor) -> Tensor:
            return F.linear(features.expand(rows, -1).contiguous(), weights, shift)[0]

        shift = -unit(3, torch.zeros(1024))
        low, high = unit(3, shift), unit(4, shift)
        chosen = int((high - low).argmax())
        first.weight.zero_()
        first.bias.fill_(-10.0)
        first.weight[chosen], first.bias[chosen] = weights[chosen], shift[chosen]
        last.weight.zero_()
        last.bias.fill_(-1e4)
        others = [unit for unit in range(20) if unit != chosen][:8]
        first.bias[others] = 4.0
        last.weight[0, others], last.weight[1, others] = 30.0, -30.0
        below, above = float(F.hardswish(low[chosen])), float(F.hardswish(high[chosen]))
        by = 200.0 / max(above - below, 1e-3)
        last.weight[1, chosen], last.bias[0], last.bias[1] = by, -960.0, 960.0 - by * (below + above) / 2
    return model


@pytest.mark.parametrize("subset", ["head", "full"])
@pytest.mark.parametrize("engine", [BookkeepingGradients, OpacusGradients])
def test_one_face_more_never_flips_the_gradients_of_the_others(
    engine: type[BookkeepingGradients] | type[OpacusGradients], subset: str, unsteady: Callable[[], None]
) -> None:
    """It moved the sum by 5.6 times the clipping norm at three faces, and by 30 at fifteen."""
    model = decided_by_rounding()
    select_trainable(model, subset)
    if not is_steady(model, (1, 48, 48)):
        if engine is OpacusGradients:
            pytest.skip("On this processor devices refuse Opacus.")
        unsteady()
    inputs, targets = torch.randn(18, 1, 48, 48), F.one_hot(torch.full((18,), 2), 7).float()
    gradients = engine(model, clipping_norm=1.0, noise_multiplier=0.0, expected_batch=1.0, random=SecureRandom())

    def summed(start: int, end: int) -> Tensor:
        gradients.compute(inputs[start:end].contiguous(memory_format=torch.channels_last), targets[start:end], summed_loss)
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]).clone()

    for count in (1, 2, 3, 15, 16):
        assert float((summed(1, 1 + count) - summed(0, 1 + count)).norm()) <= 1 + 1e-3
    gradients.close()


def face_set(count: int) -> FaceSet:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (200, 48, 48), dtype=np.uint8)[:count]
    return FaceSet(images, one_hot(random.integers(0, 7, 200), 7)[:count], EMOTIONS_7)


@pytest.mark.parametrize("kept", [False, True])
def test_a_faces_logits_and_kept_features_are_the_same_to_the_bit_with_any_number_of_others(kept: bool) -> None:
    """Federated evaluation counts them: with a batch's rest of 15 and 16 faces all 128 others changed sides."""
    torch.manual_seed(0)
    model = build_model(SMALL)
    select_trainable(model, "head")
    whole = predict(model, face_set(150), Preprocessing(), features=FeatureCache() if kept else None)
    for count in (1, 2, 3, 15, 16, 63, 64, 65, 79, 143, 144):
        found = predict(model, face_set(count), Preprocessing(), features=FeatureCache() if kept else None)
        assert np.array_equal(found, whole[:count]), count


@pytest.mark.parametrize("augmentations", [1, 3])
@pytest.mark.parametrize("count", [1, 5, 16, 37])
def test_a_few_faces_at_a_time_give_the_same_sum(
    count: int, augmentations: int, monkeypatch: pytest.MonkeyPatch, unsteady: Callable[[], None]
) -> None:
    monkeypatch.setattr(module, "ALWAYS", 16)
    torch.manual_seed(0)
    model = build_model(SMALL).train()
    select_trainable(model, "full")
    inputs, targets = faces(count * augmentations)
    inputs, targets = inputs.float(), targets.float()
    sums = []
    for few in (False, True):
        if few:
            unsteady()
        assert bool(module.at_once()) == few
        engine = BookkeepingGradients(model, clipping_norm=0.5, noise_multiplier=0.0, expected_batch=4.0, random=SecureRandom())
        engine.compute(inputs, targets, summed_loss, augmentations)
        sums.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]).clone())
        engine.close()
    assert relative(sums[1], sums[0]) < 1e-5


@pytest.mark.parametrize("augmentations", [1, 3])
@pytest.mark.parametrize("count", [0, 1, 16, 37])
def test_no_more_pixels_than_memory_has_room_for_are_computed_at_once_and_the_sum_is_the_same(
    count: int, augmentations: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build_model(SMALL).train()
    select_trainable(model, "full")
    inputs, targets = (values.float() for values in faces(count * augmentations))
    passes: list[int] = []
    model.register_forward_pre_hook(lambda module, given: passes.append(len(given[0])))
    sums, most = [], 18 if augmentations == 3 else 16
    for pixels in (bookkeeping.AT_ONCE, most * inputs[0].numel() if count else 1):
        monkeypatch.setattr(bookkeeping, "AT_ONCE", pixels)
        engine = BookkeepingGradients(model, clipping_norm=0.5, noise_multiplier=0.0, expected_batch=4.0, random=SecureRandom())
        engine.compute(inputs, targets, summed_loss, augmentations)
        sums.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]).clone())
        engine.close()
    assert len(passes) == (0 if not count else 1 - (-count * augmentations // most))
    assert max(passes[1:], default=0) <= most
    assert torch.equal(*sums) if not count else relative(sums[1], sums[0]) < 1e-5


def test_a_blank_row_that_overflows_spoils_nobody() -> None:
    model = build_model(SMALL).train()
    select_trainable(model, "head")
    inputs, targets = faces(4)
    engine = BookkeepingGradients(model, clipping_norm=1.0, noise_multiplier=0.0, expected_batch=1.0, random=SecureRandom())

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        blank = (targets.sum(1, keepdim=True) == 0).float()
        return summed_loss(logits, targets) + (blank * logits * float("inf")).nan_to_num(nan=0.0).sum()

    engine.compute(inputs.float(), targets.float(), loss)
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    engine.close()


def test_a_network_in_which_the_number_of_rows_shows_is_noticed() -> None:
    class Uneven(nn.Module):
        def forward(self, inputs: Tensor) -> Tensor:
            return inputs.flatten(1) * (1 + 1e-6 * (len(inputs) > 40))

    assert not is_steady(Uneven(), (1, 4, 4))
    assert is_steady(nn.Flatten(), (1, 4, 4))
    model = build_model(SMALL).train()
    select_trainable(model, "head")
    forward = model.get_submodule("classifier").forward
    assert recorded_is_steady(model, (1, 48, 48)) in (True, False)
    assert model.get_submodule("classifier").forward == forward
