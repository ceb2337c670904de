import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from common.config import LARGEST_COUNT, LEAST_COUNT, ModelConfig, TrainConfig
from common.emotions import EMOTIONS_7
from common.errors import ConfigError
from common.privacy.dpsgd.bookkeeping import BookkeepingGradients
from common.privacy.dpsgd.opacus_engine import OpacusGradients
from common.privacy.mechanisms import SecureRandom
from fl_client.losses import balanced_weights, make_loss
from models.mobilenet import build_model
from models.subset import select_trainable

COUNTS = dict(zip(EMOTIONS_7, (3995.0, 436.0, 4097.0, 7215.0, 4965.0, 4830.0, 3171.0), strict=True))
KINDS = ("cross-entropy", "class-balanced", "logit-adjusted")


def config(loss: str, **more: object) -> TrainConfig:
    return TrainConfig.model_validate({"loss": loss, "class_counts": COUNTS if loss != "cross-entropy" else {}, **more})


def batch(n: int = 6, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits and soft labels."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((n, 7), generator=generator), torch.rand((n, 7), generator=generator).softmax(1)


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_of_a_batch_is_the_sum_of_its_rows_losses_with_soft_labels(kind: str) -> None:
    loss, (logits, targets) = make_loss(config(kind), EMOTIONS_7), batch()
    apart = sum(loss(logits[i : i + 1], targets[i : i + 1]) for i in range(len(logits)))
    assert torch.allclose(loss(logits, targets), torch.as_tensor(apart), rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_one_faces_gradient_does_not_depend_on_who_else_is_in_the_batch(kind: str) -> None:
    loss, (logits, targets) = make_loss(config(kind), EMOTIONS_7), batch()
    alone = logits[:1].clone().requires_grad_(True)
    loss(alone, targets[:1]).backward()
    among = logits.clone().requires_grad_(True)
    loss(among, targets).backward()
    assert torch.allclose(alone.grad[0], among.grad[0], atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("beta", [0.0, 0.999, 1 - 1e-15])
def test_the_loss_is_finite_whatever_counts_are_allowed(kind: str, beta: float) -> None:
    for first, others in ((LEAST_COUNT, LARGEST_COUNT), (LARGEST_COUNT, LEAST_COUNT)):
        counts = {name: first if name == EMOTIONS_7[0] else others for name in EMOTIONS_7}
        settings = TrainConfig.model_validate({"loss": kind, "class_counts": counts, "balance": beta, "adjustment": 10.0})
        logits, targets = batch()
        logits.requires_grad_(True)
        loss = make_loss(settings, EMOTIONS_7)(logits, targets)
        loss.backward()
        assert torch.isfinite(loss)
        assert torch.isfinite(logits.grad).all()


def test_cross_entropy_is_what_it_was() -> None:
    logits, targets = batch()
    expected = F.cross_entropy(logits, targets, reduction="sum")
    assert torch.equal(make_loss(config("cross-entropy"), EMOTIONS_7)(logits, targets), expected)


def test_hard_labels_weigh_as_torchs_weighted_cross_entropy() -> None:
    logits, _ = batch()
    labels = torch.tensor([0, 1, 2, 3, 4, 1])
    weights = balanced_weights(torch.tensor([COUNTS[name] for name in EMOTIONS_7], dtype=torch.float64), 0.999)
    expected = F.cross_entropy(logits, labels, weight=weights.float(), reduction="sum")
    found = make_loss(config("class-balanced"), EMOTIONS_7)(logits, F.one_hot(labels, 7).float())
    assert torch.allclose(found, expected, rtol=1e-5)


def test_the_effective_number_is_that_of_the_paper() -> None:
    """E_n = (1 - beta^n) / (1 - beta): 1 for one example, n for beta near 1."""
    counts = torch.tensor([1.0, 10.0, 1000.0], dtype=torch.float64)
    by_hand = torch.tensor([(1 - 0.9**n) / (1 - 0.9) for n in (1, 10, 1000)], dtype=torch.float64)
    weights = balanced_weights(counts, 0.9)
    assert torch.allclose(weights / weights[0], by_hand[0] / by_hand)
    assert torch.allclose(balanced_weights(counts, 0.0), torch.ones(3, dtype=torch.float64))
    near_one = balanced_weights(counts, 1 - 1e-9)
    assert torch.allclose(near_one / near_one[0], 1 / counts, rtol=1e-4)


@given(st.lists(st.floats(1, 1e9), min_size=2, max_size=8), st.floats(0, 0.999999))
def test_class_weights_sum_to_the_number_of_classes_and_rarer_never_weighs_less(counts: list[float], beta: float) -> None:
    weights = balanced_weights(torch.tensor(counts, dtype=torch.float64), beta).numpy()
    assert weights.sum() == pytest.approx(len(counts))
    assert weights.max() <= len(counts)
    ordered = weights[np.argsort(counts, kind="stable")]
    assert (np.diff(ordered) <= 1e-9).all()


def test_logit_adjustment_adds_the_log_of_the_prior_in_training_alone() -> None:
    logits, targets = batch()
    prior = torch.tensor([COUNTS[name] for name in EMOTIONS_7])
    prior = (prior / prior.sum()).log()
    for tau in (0.0, 1.0, 2.0):
        found = make_loss(config("logit-adjusted", adjustment=tau), EMOTIONS_7)(logits, targets)
        assert torch.allclose(found, F.cross_entropy(logits + tau * prior, targets, reduction="sum"), rtol=1e-5)


def test_a_logit_adjusted_model_favours_no_frequent_class_where_faces_tell_nothing() -> None:
    """Nothing to see in the inputs: cross-entropy learns the class frequencies, the adjusted loss learns even ones."""
    counts = torch.tensor([COUNTS[name] for name in EMOTIONS_7])
    targets = (counts / counts.sum())[None]
    learnt = {}
    for kind in ("cross-entropy", "logit-adjusted"):
        loss, logits = make_loss(config(kind), EMOTIONS_7), torch.zeros((1, 7), requires_grad=True)
        optimiser = torch.optim.SGD([logits], lr=1.0)
        for _ in range(300):
            optimiser.zero_grad()
            loss(logits, targets).backward()
            optimiser.step()
        learnt[kind] = logits.detach().softmax(1)
    assert torch.allclose(learnt["cross-entropy"], targets, atol=0.01)
    assert torch.allclose(learnt["logit-adjusted"], torch.full((1, 7), 1 / 7), atol=0.01)


@pytest.mark.parametrize("engine", [BookkeepingGradients, OpacusGradients])
@pytest.mark.parametrize("kind", KINDS)
def test_no_face_moves_a_clipped_sum_by_more_than_the_norm_whatever_it_weighs(
    kind: str, engine: type[BookkeepingGradients | OpacusGradients]
) -> None:
    torch.manual_seed(0)
    model = build_model(ModelConfig(name="mobilenet_v2_025", stem_stride=2, trainable="head"))
    trained = select_trainable(model, "head")
    inputs = torch.randn(3, 1, 48, 48)
    targets = F.one_hot(torch.tensor([1, 1, 3]), 7).float()
    norm = 1e-3
    gradients = engine(model, clipping_norm=norm, noise_multiplier=0.0, expected_batch=1.0, random=SecureRandom())
    loss = make_loss(config(kind), EMOTIONS_7)

    def flat(rows: slice) -> Tensor:
        gradients.compute(inputs[rows].clone(), targets[rows], loss)
        return torch.cat([p.grad.flatten() for p in trained.values()])

    without, with_it = flat(slice(0, 2)), flat(slice(0, 3))
    gradients.close()
    assert 0.9 * norm < (with_it - without).norm() <= norm * (1 + 1e-4)


def test_counts_of_other_classes_are_refused() -> None:
    short = {name: count for name, count in COUNTS.items() if name != "fear"}
    with pytest.raises(ConfigError, match="fear is missing or too much"):
        make_loss(TrainConfig(loss="class-balanced", class_counts=short), EMOTIONS_7)
    with pytest.raises(ConfigError, match="contempt is missing or too much"):
        make_loss(TrainConfig(loss="logit-adjusted", class_counts=COUNTS | {"contempt": 1.0}), EMOTIONS_7)


def test_calibrated_leaves_a_model_alone_that_is_right_for_even_classes() -> None:
    """Faces of one class alone teach it nothing about how frequent that class is, where cross-entropy does."""
    own = np.array([0, 0, 0, 40, 0, 0, 0], dtype=np.float32)
    targets = F.one_hot(torch.full((40,), 3), 7).float()
    pull = {}
    for kind in ("cross-entropy", "calibrated"):
        logits = torch.zeros((40, 7), requires_grad=True)
        make_loss(TrainConfig(loss=kind), EMOTIONS_7, own)(logits, targets).backward()
        pull[kind] = float(logits.grad.abs().max())
    assert pull["calibrated"] < 0.2 * pull["cross-entropy"]


@pytest.mark.parametrize("faces", [0.0, 20.0, 1e6])
def test_calibrated_by_the_public_frequencies_is_cross_entropy_where_the_device_has_the_same(faces: float) -> None:
    logits, targets = batch()
    own = faces * np.array([COUNTS[name] for name in EMOTIONS_7]) / sum(COUNTS.values())
    loss = make_loss(config("calibrated"), EMOTIONS_7, own)
    assert torch.allclose(loss(logits, targets), F.cross_entropy(logits, targets, reduction="sum"), rtol=1e-5)


def test_calibrated_minimises_to_what_even_classes_would_teach() -> None:
    """One feature, twice as telling as not; the device has nine faces of one class to one of the other."""
    faces = torch.tensor([[1.0, 0.0]] * 60 + [[0.0, 1.0]] * 30 + [[1.0, 0.0]] * 4 + [[0.0, 1.0]] * 6)
    labels = torch.tensor([0] * 90 + [1] * 10)
    targets = F.one_hot(labels, 2).float()
    own = targets.sum(0).numpy()
    weight = torch.zeros((2, 2), requires_grad=True)
    names = ("neutral", "happiness")
    optimiser = torch.optim.LBFGS([weight], max_iter=100)

    def cost() -> Tensor:
        optimiser.zero_grad()
        value = make_loss(TrainConfig(loss="calibrated"), names, own)(faces @ weight, targets)
        value.backward()
        return value

    optimiser.step(cost)
    even = torch.tensor([[60 / 90, 4 / 10], [30 / 90, 6 / 10]])
    assert torch.allclose(weight.detach().softmax(1), even / even.sum(1, keepdim=True), atol=0.02)
