"""The account of one batch: each example's squared gradient norm, and what to sum once the clipping factors are known.

The layers of `common.privacy.dpsgd.layers` write into it during backward; `common.privacy.dpsgd.bookkeeping` settles it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from common.errors import ModelError

SMALL = 4096
"""Per-example gradients up to this many values are joined into one matrix, which saves calls."""

NORM_FLOOR = 1e-6
"""Added to every norm before dividing, as Opacus does: a zero gradient gets a finite factor."""

OTHER_ENGINE = "Use the Opacus engine."


Layout = Callable[[Tensor], Tensor]
"""A view of a parameter-shaped tensor in the order of another tensor's values."""


def as_it_is(values: Tensor) -> Tensor:
    return values


@dataclass(frozen=True)
class _Formed:
    """Per-example gradients (N, P), with P values in the order of `layout` of the weight."""

    parameter: nn.Parameter
    gradients: Tensor
    layout: Layout

    def add(self, sums: Mapping[nn.Parameter, Tensor], sum_of_all: Tensor) -> None:
        """Add (P,) to the parameter's sum."""
        place = self.layout(sums[self.parameter])
        place.add_(sum_of_all.view(place.shape))


@dataclass(frozen=True)
class _Outer:
    """A weight whose per-example gradient is grads^T rows and is never formed; shapes as in `Books.outer`."""

    weight: nn.Parameter
    rows: Tensor
    grads: Tensor


@dataclass
class Books:
    """What backward has written down about one batch.

    Attributes:
        open: a batch is being computed; layers record nothing otherwise.
        examples: N, the size of that batch.
        rows: R, how many rows in a row of every layer's input belong to one example: its augmentations.
    """

    open: bool = False
    examples: int = 0
    rows: int = 1
    _squares: list[Tensor] = field(default_factory=list)
    _outer: list[_Outer] = field(default_factory=list)
    _formed: list[_Formed] = field(default_factory=list)
    _small: list[_Formed] = field(default_factory=list)
    _seen: set[str] = field(default_factory=set)

    def start(self, examples: int, rows: int = 1) -> None:
        """Forget the last batch and take entries for a new one."""
        self.close()
        self.open, self.examples, self.rows = True, examples, rows

    def close(self) -> None:
        """Forget everything and take no entries."""
        self.open = False
        for entries in (self._squares, self._outer, self._formed, self._small, self._seen):
            entries.clear()

    def enter(self, layer: str) -> None:
        """Note that `layer` runs.

        Raises:
            ModelError: it has run before on this batch: its two gradients would have to be added before their norm is taken.
        """
        if layer in self._seen:
            raise ModelError(f"Layer {layer} is used twice in one pass, which bookkeeping cannot clip. {OTHER_ENGINE}")
        self._seen.add(layer)

    def formed(self, parameter: nn.Parameter, gradients: Tensor, layout: Layout = as_it_is) -> None:
        """Enter the gradients of all rows (N R, *parameter.shape), or any shape that flattens to them; an example's are added up.

        Args:
            layout: brings a tensor of the parameter's shape into the order of a row of `gradients`, without a copy.

        Raises:
            ModelError: their number is not that of the batch's rows.
        """
        self._check(gradients)
        flat = gradients.reshape(len(gradients), -1)
        if self.rows > 1:
            flat = flat.view(self.examples, self.rows, -1).sum(1)
        self._enter(_Formed(parameter, flat, layout))

    def _enter(self, entry: _Formed) -> None:
        if entry.gradients.shape[1] <= SMALL:
            self._small.append(entry)
        else:
            self._squares.append(torch.linalg.vector_norm(entry.gradients, dim=1).square_())
            self._formed.append(entry)

    def outer(self, weight: nn.Parameter, rows: Tensor, grads: Tensor) -> None:
        """Enter a weight (out, ...) whose gradient by a row is grads^T rows, summed over T places. An example has R T places.

        The squared norm is the sum of the product of the two Gram matrices (Goodfellow 2015 for T = 1; Rochette et al. 2019;
        Li et al. 2022), or that of the formed gradient where forming it costs less. Unlike the formed one's it is not the norm of
        what is added up: whoever chooses the weights could make its terms cancel or underflow, and the gradient pass unclipped.
        So what rounding may have taken from it is added.

        Args:
            rows: (N R, T, in) what the layer saw, place by place.
            grads: (N R, T, out) gradient of the loss by the layer's output.

        Raises:
            ModelError: N R is not the number of the batch's rows.
        """
        self._check(rows)
        if self.rows > 1:
            rows, grads = (values.reshape(self.examples, -1, values.shape[2]) for values in (rows, grads))
        places, into, out = rows.shape[1], rows.shape[2], grads.shape[2]
        if places == 1:
            seen, told = (torch.linalg.vector_norm(values, dim=(1, 2)).square_() for values in (rows, grads))
            least = torch.finfo(rows.dtype).tiny  # what is below may be lost; the other factor may be as large
            self._squares.append(seen.add_(into * least).mul_(told.add_(out * least)))
        elif 2 * places * places * (into + out + 4) < into * out * (12 + places / 2):
            seen, told = (torch.bmm(values, values.transpose(1, 2)) for values in (rows, grads))
            lost = _lost(seen, told, into, out)
            total = seen.mul_(told).sum((1, 2), dtype=torch.float64).clamp_(min=0.0)
            self._squares.append(total.to(lost).add_(lost))
        else:
            self._enter(_Formed(weight, torch.bmm(grads.transpose(1, 2), rows).flatten(1), as_it_is))
            return
        self._outer.append(_Outer(weight, rows, grads))

    def settle(self, sums: Mapping[nn.Parameter, Tensor], clipping_norm: float, scale: float, count: int | None = None) -> None:
        """Add `scale` times the sum of the clipped per-example gradients to `sums`, and close.

        An example whose gradient has a NaN or an infinity anywhere adds nothing.

        Args:
            sums: per parameter a contiguous tensor of its shape; changed in place.
            count: so many examples, from the first on, count; None: all.
        """
        small = torch.cat([entry.gradients for entry in self._small], 1) if self._small else None
        squares = list(self._squares)
        if small is not None:
            squares.append(torch.linalg.vector_norm(small, dim=1).square_())
        if squares:
            square = torch.stack(squares).sum(0)[:count]
            factors = (clipping_norm / (square.sqrt() + NORM_FLOOR)).clamp_(max=1.0).mul_(scale)
            finite = square.isfinite()
            every = slice(len(square)) if bool(finite.all()) else finite.nonzero()[:, 0]
            self._add(sums, small, factors, every)
        self.close()

    def _add(self, sums: Mapping[nn.Parameter, Tensor], small: Tensor | None, factors: Tensor, kept: Tensor | slice) -> None:
        """`kept` are the finite examples that count. The others must leave the products: zero times NaN is NaN."""

        def select(entries: Tensor) -> Tensor:
            return entries[kept]

        factors = select(factors)
        for outer in self._outer:
            grads = (select(outer.grads) * factors.view(-1, 1, 1)).flatten(0, 1)
            sums[outer.weight].view(grads.shape[1], -1).addmm_(grads.t(), select(outer.rows).flatten(0, 1))
        for formed in self._formed:
            formed.add(sums, torch.mv(select(formed.gradients).t(), factors))
        if small is not None:
            parts = torch.mv(select(small).t(), factors).split_with_sizes([e.gradients.shape[1] for e in self._small])
            for entry, part in zip(self._small, parts, strict=True):
                entry.add(sums, part)

    def _check(self, entries: Tensor) -> None:
        if len(entries) != self.examples * self.rows:
            raise ModelError(
                f"A layer saw {len(entries)} rows for {self.examples} examples of {self.rows}, so bookkeeping cannot tell the "
                "examples apart. Keep the batch as the first dimension of every layer's input."
            )


def _lost(seen: Tensor, told: Tensor, into: int, out: int) -> Tensor:
    """(N,) by how much the sum over the product of two Gram matrices (N, T, T) may be too small.

    Higham 2002, "Accuracy and stability of numerical algorithms", section 3.1: a sum of n products is off by at most
    n u / (1 - n u) times the sum of their magnitudes, in whatever order, and by the least normal number for each that
    underflows. With rows r_t and gradients g_t that comes to (sum of |r_t| |g_t|)^2, (sum of |g_t|)^2 and (sum of |r_t|)^2. In
    training it adds half a thousandth to a layer's square at 9 places, and a hundredth at most where the library takes this way.
    """
    places, info = seen.shape[1], torch.finfo(seen.dtype)
    lengths, slopes = (gram.diagonal(dim1=1, dim2=2).clamp(min=0.0).sqrt() for gram in (seen, told))
    terms = into + out + places**2 + 8
    largest = (lengths * slopes).sum(1).square_().mul_(1.1 * terms * info.eps / 2)
    underflows = slopes.sum(1).square_().mul_(into).add_(lengths.sum(1).square_().mul_(out)).add_(terms)
    return largest.add_(underflows.mul_(1.1 * info.tiny))
