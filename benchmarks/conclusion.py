"""How most benchmarks end: one line of JSON, and with `--check` an error that names the targets they missed."""

from collections.abc import Sequence
from typing import Any

from common.console import print_json
from common.errors import RunError


def conclude(benchmark: str, found: dict[str, Any], missed: Sequence[str] = (), *, check: bool = False) -> None:
    """Print the figures as one line of JSON.

    Args:
        found: what follows the benchmark's name, in this order.
        missed: targets, each with what was measured in its place.

    Raises:
        RunError: `check`, and a target was missed.
    """
    print_json({"benchmark": benchmark, **found}, indent=None)
    if check and missed:
        raise RunError(f"Targets missed: {'; '.join(missed)}.")
