"""Several finished runs side by side for `fl-sim compare`: what came of them, where they differ, and plots of both in one."""

from pathlib import Path
from typing import Any

from rich.console import Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from common.canonical import decode
from common.errors import IntegrityError, RunError
from simulation.choices import describe, differences
from simulation.plots import plot_accuracy, plot_epsilon
from simulation.report import SUMMARY, read_metrics
from simulation.run import RunFolder

NEEDED = {"private", "epsilon", "test_accuracy", "test_balanced_accuracy", "device_accuracy_worst_tenth", "round_seconds"}


def read_summary(folder: Path) -> dict[str, Any]:
    """The figures of a finished run.

    Raises:
        RunError: the run has not finished, or its figures are not as they were written.
    """
    try:
        summary = decode((folder / SUMMARY).read_bytes())
    except OSError as error:
        raise RunError(f"{folder} has not finished: it holds no {SUMMARY}. Go on with: fl-sim run --resume {folder}") from error
    except IntegrityError:
        summary = None
    if not _is_summary(summary):
        raise RunError(f"{folder / SUMMARY} was altered or is damaged; fl-sim run --resume {folder} writes it anew.")
    return dict(summary)


def _is_summary(value: Any) -> bool:
    """Whether `value` holds the figures that `comparison_table` prints."""
    if not isinstance(value, dict) or not isinstance(value.get("private"), bool):
        return False
    numbers = [value.get(name) for name in ("test_accuracy", "test_balanced_accuracy", *(["epsilon"] * value["private"]))]
    optional = [value.get(name) for name in ("device_accuracy_worst_tenth", "round_seconds", "client_epsilon")]
    return value.keys() >= NEEDED and all(
        isinstance(number, int | float) for number in numbers + [number for number in optional if number is not None]
    )


def names_of(folders: list[Path]) -> dict[str, Path]:
    """A short name for each run: its folder's, with a number where two are alike."""
    names: dict[str, Path] = {}
    for folder in folders:
        base = folder.resolve().name
        same = sum(name == base or name.startswith(f"{base} (") for name in names)
        names[base if same == 0 else f"{base} ({same + 1})"] = folder
    return names


def comparison_table(runs: dict[str, Path]) -> Table:
    """One row a run: what came of it. The client-level epsilon has a column where any of the runs promised one."""
    summaries = {name: read_summary(folder) for name, folder in runs.items()}
    whole = any(_client_epsilon(summary) is not None for summary in summaries.values())
    table = Table(title="Runs", title_justify="left")
    table.add_column("run", style="bold", overflow="fold")
    for heading in ("epsilon", *(["client epsilon"] if whole else []), "accuracy", "balanced", "worst tenth", "s/round"):
        table.add_column(heading, justify="right")
    for name, summary in summaries.items():
        worst, seconds, devices = summary["device_accuracy_worst_tenth"], summary["round_seconds"], _client_epsilon(summary)
        none = "[bold red]none[/]" if not summary["private"] and devices is None else "none"
        table.add_row(
            escape(name),
            f"{summary['epsilon']:.2f}" if summary["private"] else none,
            *([none if devices is None else f"{devices:.2f}"] if whole else []),
            f"{summary['test_accuracy']:.1%}",
            f"{summary['test_balanced_accuracy']:.1%}",
            "-" if worst is None else f"{worst:.1%}",
            "-" if seconds is None else f"{seconds:.1f}",
        )
    return table


def _client_epsilon(summary: dict[str, Any]) -> float | None:
    """What a run has spent at the client level; None where it promised nothing there, or before that was written down."""
    spent: float | None = summary.get("client_epsilon")
    return (spent or 0.0) if summary.get("client_dp", "none") != "none" else None


def settings_table(runs: dict[str, Path]) -> Group:
    """What the runs have in common in a few words, and the settings in which each differs from another."""
    configs = {name: RunFolder(folder).config for name, folder in runs.items()}
    differing = differences(configs)
    shared = Text(f"{'In common' if len(runs) > 1 else 'Settings'}: {describe(*configs.values())}")
    if not any(differing.values()):
        return Group(shared, *(["Every other setting is the same."] if len(runs) > 1 else []))
    table = Table(title="Where they differ", title_justify="left")
    table.add_column("run", style="bold", overflow="fold")
    table.add_column("settings", overflow="fold")
    for name, values in differing.items():
        table.add_row(escape(name), Text(", ".join(f"{setting}={value}" for setting, value in values.items())))
    return Group(shared, table)


def plot_comparison(runs: dict[str, Path], out: Path) -> list[Path]:
    """accuracy.png and epsilon.png of all runs together, in the folder `out`."""
    out.mkdir(parents=True, exist_ok=True)
    records = {name: read_metrics(folder) for name, folder in runs.items()}
    return [plot_accuracy(records, out / "accuracy.png"), plot_epsilon(records, out / "epsilon.png")]
