"""Several finished runs side by side: a table, and plots of accuracy and epsilon in one picture each, for `fl-sim compare`."""

from pathlib import Path
from typing import Any

from rich.table import Table

from common.canonical import decode
from common.errors import RunError
from simulation.report import SUMMARY, describe, plot_accuracy, plot_epsilon, read_metrics
from simulation.run import RunFolder


def read_summary(folder: Path) -> dict[str, Any]:
    """The figures of a finished run.

    Raises:
        RunError: the run has not finished.
    """
    try:
        summary: dict[str, Any] = decode((folder / SUMMARY).read_bytes())
        if not {"private", "epsilon", "test_accuracy", "device_accuracy_worst_tenth", "round_seconds"} <= set(summary):
            raise RunError(f"{folder / SUMMARY} is damaged; fl-sim run --resume {folder} writes it anew.")
    except OSError as error:
        raise RunError(f"{folder} has not finished: it holds no {SUMMARY}. Go on with: fl-sim run --resume {folder}") from error
    return summary


def names_of(folders: list[Path]) -> dict[str, Path]:
    """A short name for each run: its folder's, with a number where two are alike."""
    names: dict[str, Path] = {}
    for folder in folders:
        base = folder.resolve().name
        same = sum(name == base or name.startswith(f"{base} (") for name in names)
        names[base if same == 0 else f"{base} ({same + 1})"] = folder
    return names


def comparison_table(runs: dict[str, Path]) -> Table:
    """One row a run: what was chosen, and what came of it."""
    table = Table(title="Runs", title_justify="left")
    table.add_column("run", style="bold", overflow="fold")
    table.add_column("choices", overflow="fold")
    for heading in ("epsilon", "accuracy", "balanced", "worst tenth", "s/round"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, folder in runs.items():
        summary, config = read_summary(folder), RunFolder(folder).config
        worst, seconds = summary["device_accuracy_worst_tenth"], summary["round_seconds"]
        table.add_row(
            name,
            describe(config),
            f"{summary['epsilon']:.2f}" if summary["private"] else "[bold red]none[/]",
            f"{summary['test_accuracy']:.1%}",
            f"{summary['test_balanced_accuracy']:.1%}",
            "-" if worst is None else f"{worst:.1%}",
            "-" if seconds is None else f"{seconds:.1f}",
        )
    return table


def plot_comparison(runs: dict[str, Path], out: Path) -> list[Path]:
    """accuracy.png and epsilon.png of all runs together, in the folder `out`."""
    out.mkdir(parents=True, exist_ok=True)
    records = {name: read_metrics(folder) for name, folder in runs.items()}
    return [plot_accuracy(records, out / "accuracy.png"), plot_epsilon(records, out / "epsilon.png")]
