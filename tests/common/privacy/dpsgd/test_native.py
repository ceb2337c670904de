"""The native kernels give what torch gives, and are no more than a wish: nobody notices where they cannot be built."""

import ctypes
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from common.errors import PrivacyError
from common.privacy.dpsgd.bookkeeping import BookkeepingGradients
from common.privacy.dpsgd.convolution import taps_first
from common.privacy.dpsgd.native import build, kernels
from common.privacy.mechanisms import SecureRandom
from tests.common.privacy.dpsgd.reference import KEY, clipped_sum, example_gradients, faces, median_norm, relative, summed_loss

available = build.library() is not None
needs_compiler = pytest.mark.skipif(not available, reason="no C compiler here, or EMOFL_NATIVE=0")
ACTS: tuple[type[nn.Module], ...] = (nn.ReLU, nn.ReLU6, nn.Hardswish)


@pytest.fixture
def fresh() -> Iterator[None]:
    """The library is looked for anew, before and after."""
    build._library.cache_clear()
    yield
    build._library.cache_clear()


def channels_last(*shape: int) -> Tensor:
    return torch.randn(shape).contiguous(memory_format=torch.channels_last)


@needs_compiler
@settings(max_examples=40, deadline=None)
@given(
    kernel=st.sampled_from([3, 5]),
    stride=st.integers(1, 3),
    padding=st.integers(0, 2),
    size=st.tuples(st.integers(5, 11), st.integers(5, 11)),
    channels=st.sampled_from([8, 16, 24, 40]),
    count=st.integers(1, 4),
    threads=st.integers(1, 3),
)
def test_depthwise_convolutions_are_torchs(
    kernel: int, stride: int, padding: int, size: tuple[int, int], channels: int, count: int, threads: int
) -> None:
    torch.manual_seed(0)
    inputs, weight = channels_last(count, channels, *size), torch.randn(channels, 1, kernel, kernel)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        outputs = kernels.depthwise(inputs, weight, stride, padding)
        above = channels_last(*outputs.shape)
        back, found = kernels.depthwise_backward(inputs, above, weight, stride, padding, by_input=True, by_weight=True)
    finally:
        torch.set_num_threads(before)
    assert back is not None
    assert found is not None
    x = inputs.double().requires_grad_()
    for i in range(count):
        w = weight.double().requires_grad_()
        expected = F.conv2d(x[i : i + 1], w, stride=stride, padding=padding, groups=channels)
        assert relative(outputs[i : i + 1], expected.detach()) < 1e-5
        expected.backward(above[i : i + 1].double())
        assert w.grad is not None
        assert relative(found[i], taps_first(w.grad)) < 1e-5
    assert x.grad is not None
    assert relative(back, x.grad) < 1e-5


@needs_compiler
@pytest.mark.parametrize("offset", [0.0, 30.0])
@pytest.mark.parametrize("activation", [None, *ACTS])
@pytest.mark.parametrize("shape", [(3, 8, 1, 1), (2, 24, 5, 3), (1, 40, 4, 4)])
def test_norm_with_its_activation_is_torchs(
    shape: tuple[int, int, int, int], activation: type[nn.Module] | None, offset: float
) -> None:
    torch.manual_seed(1)
    channels, groups = shape[1], shape[1] // 8
    inputs = (channels_last(*shape) + offset).contiguous(memory_format=torch.channels_last)
    scale, shift = torch.randn(channels), torch.randn(channels)
    kind = 0 if activation is None else kernels.ACTIVATIONS[activation]
    outputs, mean, deviation = kernels.norm(inputs, scale, shift, groups, 1e-5, kind)
    above = channels_last(*shape)
    back, by_scale, by_shift = kernels.norm_backward(above, inputs, scale, shift, mean, deviation, kind)
    act = nn.Identity() if activation is None else activation()
    for i in range(len(inputs)):
        x, w, b = (values.double().requires_grad_() for values in (inputs[i : i + 1], scale, shift))
        expected = act(F.group_norm(x, groups, w, b))
        tolerance = 1e-5 if offset == 0 else 1e-4
        assert relative(outputs[i : i + 1], expected.detach()) < tolerance
        expected.backward(above[i : i + 1].double())
        for found, known in ((back[i : i + 1], x.grad), (by_scale[i], w.grad), (by_shift[i], b.grad)):
            assert known is not None
            assert relative(found, known) < tolerance


@needs_compiler
@pytest.mark.parametrize("activation", ACTS)
def test_nothing_that_is_not_finite_is_hidden(activation: type[nn.Module]) -> None:
    inputs = channels_last(2, 8, 3, 3)
    inputs[0, 1, 1, 1] = float("nan")
    ones = torch.ones(8)
    outputs, mean, deviation = kernels.norm(inputs, ones, ones, 1, 1e-5, kernels.ACTIVATIONS[activation])
    assert bool(outputs[0].isnan().any())
    assert bool(outputs[1].isfinite().all())
    _, by_scale, _ = kernels.norm_backward(
        torch.ones_like(inputs), inputs, ones, ones, mean, deviation, kernels.ACTIVATIONS[activation]
    )
    assert not bool(by_scale[0].isfinite().all())
    assert bool(by_scale[1].isfinite().all())


def network() -> nn.Module:
    """All that can be native, once with an activation that is joined and once with one that must not be."""
    torch.manual_seed(0)
    shared = nn.ReLU()
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.GroupNorm(1, 8),
        nn.Hardswish(),
        nn.Conv2d(8, 8, 5, stride=2, padding=2, groups=8, bias=False),
        nn.GroupNorm(1, 8),
        nn.Hardswish(),
        nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False),
        nn.GroupNorm(1, 8),
        shared,
        nn.Conv2d(8, 16, 1),
        nn.GroupNorm(2, 16),
        shared,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 7),
    )


def step(model: nn.Module, inputs: Tensor, targets: Tensor, norm: float) -> Tensor:
    engine = BookkeepingGradients(model, clipping_norm=norm, noise_multiplier=0.0, expected_batch=1.0, random=SecureRandom(KEY))
    try:
        engine.compute(inputs, targets, summed_loss)
    finally:
        engine.close()
    return torch.cat([p.grad.reshape(-1).clone() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("frozen", [(), (4,), (3, 7)])
def test_the_clipped_sum_is_the_true_one_with_kernels_and_without(
    monkeypatch: pytest.MonkeyPatch, native: bool, frozen: tuple[int, ...]
) -> None:
    if native and not available:
        pytest.skip("no C compiler here")
    if not native:
        monkeypatch.setattr(kernels, "library", lambda: None)
    model, (inputs, targets) = network(), faces(5, 16, torch.float32)
    for place in frozen:
        model[place].requires_grad_(False)  # type: ignore[index]
    truth = network().double()
    for p, q in zip(truth.parameters(), model.parameters(), strict=True):
        p.requires_grad_(q.requires_grad)
    gradients = example_gradients(truth, inputs.double(), targets.double())
    norm = median_norm(gradients)
    assert relative(step(model, inputs, targets, norm), clipped_sum(gradients, norm)) < 1e-5
    outputs, before = model(inputs), truth(inputs.double())
    assert relative(outputs.detach(), before.detach()) < 1e-5


@needs_compiler
def test_kernels_are_really_used(monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[str] = []
    call = kernels._call

    def told(name: str, *rest: object) -> None:
        names.append(name)
        call(name, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(kernels, "_call", told)
    step(network(), *faces(3, 16, torch.float32), 1.0)
    assert names.count("emofl_depthwise_forward") == names.count("emofl_depthwise_backward") == 2
    assert names.count("emofl_norm_forward") == names.count("emofl_norm_backward") == 4


@needs_compiler
def test_noise_of_one_key_is_the_same_with_the_kernel_and_without(monkeypatch: pytest.MonkeyPatch) -> None:
    native = SecureRandom(KEY).normal(200_001, 1.0)
    monkeypatch.setattr(kernels, "library", lambda: None)
    assert float((SecureRandom(KEY).normal(200_001, 1.0) - native).abs().max()) < 1e-5


def test_a_switch_turns_them_off(monkeypatch: pytest.MonkeyPatch, fresh: None) -> None:
    monkeypatch.setenv("EMOFL_NATIVE", "0")
    assert build.library() is None


def no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build.shutil, "which", lambda name: None)


def broken_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    failed = subprocess.CompletedProcess([], 1, "", "no such header")
    monkeypatch.setattr(build.subprocess, "run", lambda *a, **k: failed)


def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> tuple[int, str]:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(build.tempfile, "mkstemp", refuse)


@pytest.mark.parametrize("trouble", [no_compiler, broken_compiler, full_disk])
def test_a_build_that_fails_is_silence_and_torch(
    monkeypatch: pytest.MonkeyPatch, fresh: None, tmp_path: Path, trouble: Callable[[pytest.MonkeyPatch], None]
) -> None:
    monkeypatch.setenv("EMOFL_NATIVE", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    trouble(monkeypatch)
    assert build.library() is None
    assert SecureRandom(KEY).normal(10, 1.0).shape == (10,)
    assert list(tmp_path.rglob("*.so")) == []


@needs_compiler
def test_what_others_could_have_written_is_not_loaded(monkeypatch: pytest.MonkeyPatch, fresh: None, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = build.cache_folder()
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    loaded: list[str] = []
    monkeypatch.setattr(ctypes, "CDLL", lambda path: loaded.append(path))
    assert build.library() is None
    folder.chmod(0o700)
    build._library.cache_clear()
    build.library()
    (made,) = folder.iterdir()
    assert os.stat(made).st_mode & 0o777 == 0o700
    made.chmod(0o722)
    build._library.cache_clear()
    assert build.library() is None
    assert loaded == [str(made)]


def test_noise_is_refused_and_never_zero_where_the_kernels_vanish_in_between(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "fits", lambda *_: True)
    monkeypatch.setattr(kernels, "library", lambda: None)
    with pytest.raises(PrivacyError, match="no noise was drawn"):
        SecureRandom().normal(5, 1.0)


@needs_compiler
@pytest.mark.parametrize(("channels", "side"), [(16, 6), (24, 3), (40, 1)])
def test_squeeze_and_excitations_gradients_are_torchs(channels: int, side: int) -> None:
    torch.manual_seed(0)
    inputs, scale, above = (
        channels_last(3, channels, side, side),
        torch.randn(3, channels, 1, 1),
        channels_last(3, channels, side, side),
    )
    back, by_scale = kernels.excite_backward(above, inputs, scale)
    assert relative(back, (above * scale).double()) < 1e-6
    assert relative(by_scale, (above.double() * inputs.double()).sum((2, 3), keepdim=True)) < 1e-5
