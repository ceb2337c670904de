"""Plain gradients by the layers of the DP engine: nothing is clipped and no noise is added, but the native kernels do the work.

`models.pretraining` trains the public base model with it. Never for a device's faces under a budget.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from common.privacy.dpsgd.bookkeeping import record_layers
from common.privacy.dpsgd.books import Books, Layout, as_it_is


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


def sum_gradients(model: nn.Module) -> nn.Module:
    """Let the model's trainable layers run the DP engine's forwards, in place; `backward` sets `grad` as torch would.

    The same sums in another order. Parameters keep their names, order and values.

    Raises:
        ModelError: a layer that bookkeeping does not know, as for `BookkeepingGradients`.
    """
    record_layers(model, _Sums())
    return model
