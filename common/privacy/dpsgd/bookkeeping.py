"""DP-SGD steps by book-keeping: one forward, one backward, no per-example gradient of a large layer. `fl_client.train` drives it.

After Bu et al. 2023, "Differentially private optimization on large model at small cost": norms come out of backward itself, and
the clipped sum is added onto a buffer that already holds the noise. Same numbers as `OpacusGradients`.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from common.errors import ModelError
from common.privacy.dpsgd.books import OTHER_ENGINE, Books
from common.privacy.dpsgd.excitation import cheaper_forwards
from common.privacy.dpsgd.layers import activations_behind, bookkeeping_forward, passing_forward
from common.privacy.dpsgd.rows import at_once, even_rows, filled, is_steady
from common.privacy.mechanisms import SecureRandom

AT_ONCE = 512 * 48**2
"""Values of the inputs computed at once: 512 faces of 48x48 take 1.4 to 2 GB in the default network. A server says how many a
step has."""


class BookkeepingGradients:
    """Noisy gradients of one model under DP-SGD.

    Layers that hold a trainable parameter run another forward until `close`; frozen ones are left alone.

    Args:
        model: per-sample separable; its trainable parameters are those that require gradients now.
        clipping_norm: C, largest L2 norm of one example's gradient over all parameters together.
        noise_multiplier: sigma; 0 only to compare clipped sums in tests.
        expected_batch: q n, the fixed divisor.
        random: source of the noise.

    Raises:
        ModelError: a trainable parameter lies in a layer whose per-example gradients are unknown, is shared by two layers, or
            another engine still holds the model. The model is then as it was.
    """

    def __init__(
        self, model: nn.Module, *, clipping_norm: float, noise_multiplier: float, expected_batch: float, random: SecureRandom
    ) -> None:
        self._model = model
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        self._sizes = [p.numel() for p in self._parameters]
        self._clipping_norm = clipping_norm
        self._std = noise_multiplier * clipping_norm / expected_batch
        self._divisor = expected_batch
        self._random = random
        self._books = Books()
        self._layers = record_layers(model, self._books)

    def compute(self, inputs: Tensor, targets: Tensor, loss: Callable[[Tensor, Tensor], Tensor], augmentations: int = 1) -> None:
        """Set `grad` of every trainable parameter to the noisy mean over the batch; an empty batch gives noise alone.

        Args:
            inputs: (B K, 1, S, S), the K augmentations of an example one after the other; B may be 0.
            targets: (B K, C) rows that sum to 1.
            loss: maps logits and targets to the *sum* of the rows' losses.
            augmentations: K; their gradients are averaged before the example is clipped (De et al. 2022, "Unlocking
                high-accuracy differentially private image classification through scale", section 3.2), so K changes
                neither the sensitivity nor the noise.

        Raises:
            ModelError: a layer runs twice or on another number of rows than B K, a parameter is used outside its own layer, or
                the engine is closed. No gradient is set then.
        """
        if not self._layers:
            raise ModelError("This engine is closed; make a new one for the model.")
        for p in self._parameters:
            p.grad = None
        sums = self._noise()
        examples = examples_in(inputs, augmentations)
        most = at_once() or -(-examples // max(1, -(-inputs.numel() // AT_ONCE)))
        whole = even_examples(most, augmentations)
        for start in range(0, examples, most or 1):
            part = slice(start * augmentations, min(start + most, examples) * augmentations)
            self._add(sums, inputs[part], targets[part], loss, augmentations, whole)
        for p, gradient in sums.items():
            p.grad = gradient

    def _add(
        self,
        sums: dict[nn.Parameter, Tensor],
        inputs: Tensor,
        targets: Tensor,
        loss: Callable[[Tensor, Tensor], Tensor],
        augmentations: int,
        whole: int,
    ) -> None:
        """Add the clipped sum over these examples; blank ones fill their number up to `whole`, and count nothing."""
        examples = examples_in(inputs, augmentations)
        self._books.start(whole, augmentations)
        try:
            outputs = self._model(filled(inputs, whole * augmentations))
            (loss(outputs, filled(targets, whole * augmentations)) / augmentations).backward()  # type: ignore[no-untyped-call]
            self._refuse_stray_gradients()
            with torch.no_grad():
                self._books.settle(sums, self._clipping_norm, 1 / self._divisor, examples)
        finally:
            self._books.close()

    def close(self) -> None:
        """Give the layers their own forward back."""
        self._books.close()
        give_back(self._layers)
        self._layers = []

    def _noise(self) -> dict[nn.Parameter, Tensor]:
        """Gaussian noise of standard deviation sigma C / (q n), one draw over all parameters, as views of their shapes."""
        count = sum(self._sizes)
        noise = self._random.normal(count, self._std) if self._std else torch.zeros(count)
        parts = noise.to(self._parameters[0]).split_with_sizes(self._sizes)
        return {p: part.view(p.shape) for p, part in zip(self._parameters, parts, strict=True)}

    def _refuse_stray_gradients(self) -> None:
        """Recorded layers set no `grad`: whatever has one was not clipped."""
        stray = [name for name, p in self._model.named_parameters() if p.requires_grad and p.grad is not None]
        if stray:
            self._model.zero_grad()
            raise ModelError(f"Parameter {stray[0]} is used outside its own layer, which bookkeeping cannot clip. {OTHER_ENGINE}")


def even_examples(examples: int, augmentations: int) -> int:
    """B for which B K rows are enough for each thread, and as many for each."""
    while (rows := even_rows(examples * augmentations)) != examples * augmentations:
        examples = -(-rows // augmentations)
    return examples


def examples_in(inputs: Tensor, augmentations: int) -> int:
    """B of (B K, ...).

    Raises:
        ModelError: the rows are no multiple of K.
    """
    if augmentations < 1 or len(inputs) % augmentations:
        raise ModelError(f"{len(inputs)} rows are not {augmentations} augmentations of each example.")
    return len(inputs) // augmentations


def record_layers(model: nn.Module, books: Books) -> list[nn.Module]:
    """Let the layers that hold a trainable parameter enter what backward finds into `books`; returns the layers changed.

    Raises:
        ModelError: as for `BookkeepingGradients`. The model is then as it was.
    """
    layers = _trainable_layers(model)
    behind = activations_behind(model)
    forwards = {layer: bookkeeping_forward(name, layer, books, behind.get(layer)) for name, layer in layers}
    forwards |= {activation: passing_forward(activation, books) for activation in behind.values()}
    forwards |= cheaper_forwards(model, books)
    for layer, forward in forwards.items():
        layer.forward = forward
    return list(forwards)


def recorded_is_steady(model: nn.Module, shape: tuple[int, ...]) -> bool:
    """As `is_steady`, by the forwards of this engine; no gradient is kept."""
    books = Books(open=True, examples=0)
    layers = record_layers(model, books)
    try:
        return is_steady(model, shape, starting=lambda rows: books.start(rows))
    finally:
        books.close()
        give_back(layers)


def give_back(layers: Iterable[nn.Module]) -> None:
    """Let the layers that `record_layers` changed run their own forward again."""
    for layer in layers:
        layer.__dict__.pop("forward", None)


def _trainable_layers(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """The modules that own a trainable parameter themselves, by name."""
    owners: dict[nn.Parameter, str] = {}
    layers = []
    for name, layer in model.named_modules():
        own = [p for p in layer.parameters(recurse=False) if p.requires_grad]
        for p in own:
            if p in owners:
                raise ModelError(
                    f"Layers {owners[p]} and {name} share a parameter, which bookkeeping cannot clip. {OTHER_ENGINE}"
                )
            owners[p] = name
        if own:
            if "forward" in layer.__dict__:
                raise ModelError(f"Layer {name} already runs the forward of another engine; close that engine first.")
            layers.append((name, layer))
    if not layers:
        raise ModelError("No parameter of the model is trainable; choose another subset.")
    return layers
