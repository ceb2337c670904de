"""A face's numbers are its own to the last bit, whoever else is in the batch. Engines, evaluation and kept features ask here.

Libraries choose their kernels by the number of rows, and the kernels round differently: below 16 rows a linear layer's outputs
change in their last bits with every other row (measured with MKL and oneDNN; with several threads, where the rows are divided).
Whoever chooses the weights can blow such a bit up to a decision between classes, so that one face more flips the gradients of all
others: by 30 times the clipping norm, measured. So there are never fewer rows than that; blank ones fill up, and count nothing.
"""

import threading
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

LEAST = 16
"""Rows for each thread, from which on their number changes nothing."""
ALWAYS = 64
"""Rows at a time for each thread where it changes something all the same."""

_uneven = threading.Event()


def insist() -> None:
    """On this processor the number of rows shows: from now on they are multiples of `ALWAYS` in this process."""
    _uneven.set()


def at_once() -> int:
    """How many rows are computed at a time, always; 0 where their number does not matter, as it should."""
    return ALWAYS * torch.get_num_threads() if _uneven.is_set() else 0


def even_rows(rows: int) -> int:
    """As many rows as are computed for so many, which may be none: enough for each thread, and the same for each."""
    threads, chunk = torch.get_num_threads(), at_once()
    unit, least = chunk or threads, chunk or LEAST * threads
    return max(least, -(-rows // unit) * unit) if rows else 0


def filled(values: Tensor, rows: int) -> Tensor:
    """(N, ...) -> (rows, ...), with zeros behind; memory format kept. `rows` is N or more."""
    if rows == len(values):
        return values
    blank = values.new_zeros((rows - len(values), *values.shape[1:]))
    joined = torch.cat([values, blank])
    return joined.contiguous(memory_format=torch.channels_last) if values.ndim == 4 else joined


def is_steady(
    model: nn.Module,
    shape: tuple[int, ...],
    sizes: Iterable[int] = (1, 17, 33),
    starting: Callable[[int], None] = lambda rows: None,
) -> bool:
    """Whether on this processor, with this many threads, no row of outputs or of input gradients depends on how many there are.

    Args:
        model: in the mode in which it is to run, its layers' forwards as they are to be.
        shape: of one input.
        sizes: numbers of rows that are compared with each other, each made even.
        starting: told the number of rows before each.
    """
    generator = torch.Generator().manual_seed(0)
    even = sorted({even_rows(size) for size in sizes} | {even_rows(64)})
    inputs = torch.randn((even[-1], *shape), generator=generator)
    first: tuple[Tensor, Tensor] | None = None
    for rows in reversed(even):
        starting(rows)
        part = inputs[:rows].clone().contiguous(memory_format=torch.channels_last).requires_grad_(True)
        outputs = model(part)
        weights = torch.randn((len(inputs), *outputs.shape[1:]), generator=torch.Generator().manual_seed(1))
        (gradients,) = torch.autograd.grad((outputs * weights[:rows]).sum(), part)
        found = outputs.detach(), gradients
        if first is None:
            first = found
        elif not all(torch.equal(whole[:rows], one) for whole, one in zip(first, found, strict=True)):
            return False
    return True
