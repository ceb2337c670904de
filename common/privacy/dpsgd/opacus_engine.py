"""DP-SGD steps through Opacus: per-sample gradients, clipping, noise from a secure stream. `fl_client.train` drives it.

What leaves a step is (sum of clipped gradients + N(0, (sigma C)^2)) / (q n): Abadi et al. 2016, Algorithm 1, with the
expected batch size as the divisor.
"""

from collections.abc import Callable

import torch
from opacus.optimizers import DPOptimizer
from torch import Tensor, nn

from common.errors import ModelError
from common.privacy.dpsgd.bookkeeping import examples_in
from common.privacy.dpsgd.rows import at_once, even_rows, filled
from common.privacy.dpsgd.samplers import FastGradSampleHooks
from common.privacy.mechanisms import SecureRandom


class _SecureOptimizer(DPOptimizer):  # type: ignore[misc]
    """Opacus's optimizer, with noise from a secure stream and non-finite gradients shut out."""

    def __init__(self, optimizer: torch.optim.Optimizer, random: SecureRandom, **settings: float | str | None) -> None:
        super().__init__(optimizer, **settings)
        self._random = random

    def clip_and_accumulate(self) -> None:
        """Clip each example's gradient to norm C. An example with a NaN or infinite gradient adds nothing."""
        samples = [self._get_flat_grad_sample(p) for p in self.params]
        if len(samples[0]):
            bad = torch.stack([~s.flatten(1).isfinite().all(1) for s in samples]).any(0)
            if bool(bad.any()):
                for s in samples:
                    s[bad] = 0.0
        super().clip_and_accumulate()

    def add_noise(self) -> None:
        """Gradients become clipped sums plus Gaussian noise of standard deviation sigma C, one stream for all parameters."""
        sizes = [p.numel() for p in self.params]
        noise = self._random.normal(sum(sizes), self.noise_multiplier * self.max_grad_norm)
        for p, part in zip(self.params, torch.split(noise, sizes), strict=True):
            p.grad = p.summed_grad + part.view_as(p)


class OpacusGradients:
    """Noisy gradients of one model under DP-SGD.

    Args:
        model: per-sample separable; its trainable parameters are those that require gradients. It has
            hooks until `close`.
        clipping_norm: C, largest L2 norm of one example's gradient over all parameters together.
        noise_multiplier: sigma; 0 only to compare clipped sums in tests.
        expected_batch: q n, the fixed divisor.
        random: source of the noise.

    Raises:
        ModelError: on this processor a face's numbers show how many others there are, and this engine cannot help it.
    """

    def __init__(
        self, model: nn.Module, *, clipping_norm: float, noise_multiplier: float, expected_batch: float, random: SecureRandom
    ) -> None:
        if at_once():
            raise ModelError("On this processor the Opacus engine would let faces show in each other's gradients.")
        self._model = model
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        self._hooks = FastGradSampleHooks(model, loss_reduction="sum")
        self._optimizer = _SecureOptimizer(
            torch.optim.SGD(self._parameters, lr=1.0),
            random,
            noise_multiplier=noise_multiplier,
            max_grad_norm=clipping_norm,
            expected_batch_size=None,
            loss_reduction="sum",
        )
        self._divisor = expected_batch

    def compute(self, inputs: Tensor, targets: Tensor, loss: Callable[[Tensor, Tensor], Tensor], augmentations: int = 1) -> None:
        """As `BookkeepingGradients.compute`."""
        self._optimizer.zero_grad()
        if len(inputs):
            examples = examples_in(inputs, augmentations)
            rows = even_rows(len(inputs))
            outputs = self._model(filled(inputs, rows).requires_grad_(True))
            (loss(outputs, filled(targets, rows)) / augmentations).backward()  # type: ignore[no-untyped-call]
            for p in self._parameters:
                own = p.grad_sample[: len(inputs)]  # type: ignore[attr-defined]
                p.grad_sample = own.view(examples, augmentations, *p.shape).sum(1) if augmentations > 1 else own  # type: ignore[attr-defined]
        else:
            for p in self._parameters:
                p.grad_sample = p.new_zeros((0, *p.shape))  # type: ignore[attr-defined]
        self._optimizer.pre_step()
        for p in self._parameters:
            if p.grad is not None:
                p.grad /= self._divisor
            p.grad_sample = p.summed_grad = None  # type: ignore[attr-defined]

    def close(self) -> None:
        """Take the hooks off the model."""
        self._hooks.cleanup()
