"""Plain gradients, by torch or by the layers of the DP engine: nothing is clipped and no noise is added.

`models.pretraining` trains the public base model with it, `fl_client.train` devices without privacy. Never under a budget.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from common.errors import ModelError
from common.privacy.dpsgd.bookkeeping import give_back, record_layers
from common.privacy.dpsgd.books import Books, Layout, as_it_is
from common.privacy.dpsgd.native.build import library


@dataclass
class _Sums(Books):
    """Books that add every entry to its parameter's `grad` at once, and remember nothing."""

    open: bool = True

    def enter(self, layer: str) -> None:
        """A sum does not mind a layer that runs twice."""

    def formed(self, parameter: nn.Parameter, gradients: Tensor, layout: Layout = as_it_is) -> None:
        """As in `Books.formed`."""
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        place = layout(parameter.grad)
        place.add_(gradients.reshape(len(gradients), -1).sum(0).view(place.shape))

    def outer(self, weight: nn.Parameter, rows: Tensor, grads: Tensor) -> None:
        """(N, T, in) and (N, T, out)."""
        gradient = (grads.flatten(0, 1).t() @ rows.flatten(0, 1)).view_as(weight)
        weight.grad = gradient if weight.grad is None else weight.grad.add_(gradient)


class PlainGradients:
    """The mean gradient of a batch by torch alone, without clipping or noise: gives no privacy."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model

    def compute(self, inputs: Tensor, targets: Tensor, loss: Callable[[Tensor, Tensor], Tensor], augmentations: int = 1) -> None:
        """Set `grad` of every trainable parameter to the mean over the rows; arguments as in `BookkeepingGradients`."""
        self._model.zero_grad()
        (loss(self._model(inputs), targets) / len(inputs)).backward()  # type: ignore[no-untyped-call]

    def close(self) -> None:
        """Leave no gradient behind."""
        self._model.zero_grad()


class SummedGradients(PlainGradients):
    """The same by the DP engine's layers; the model is changed until `close`.

    Raises:
        ModelError: as for `BookkeepingGradients`.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self._layers = record_layers(model, _Sums())

    def compute(self, inputs: Tensor, targets: Tensor, loss: Callable[[Tensor, Tensor], Tensor], augmentations: int = 1) -> None:
        """As in `PlainGradients`."""
        if not self._layers:
            raise ModelError("This engine is closed; make a new one for the model.")
        super().compute(inputs, targets, loss, augmentations)

    def close(self) -> None:
        """Give the layers their own forward back."""
        give_back(self._layers)
        self._layers = []
        super().close()


def plain_gradients(model: nn.Module) -> PlainGradients:
    """The faster of the two here: the DP engine's layers where their native kernels could be built."""
    return PlainGradients(model) if library() is None else SummedGradients(model)


def sum_gradients(model: nn.Module) -> nn.Module:
    """Let the model's trainable layers run the DP engine's forwards, in place; `backward` sets `grad` as torch would.

    The same sums in another order. Parameters keep their names, order and values.

    Raises:
        ModelError: a layer that bookkeeping does not know, as for `BookkeepingGradients`.
    """
    record_layers(model, _Sums())
    return model
