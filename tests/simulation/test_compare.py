import io
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from matplotlib.figure import Figure
from rich.console import Console, RenderableType

from common.canonical import encode
from common.config import make_config
from common.errors import RunError
from simulation.compare import comparison_table, names_of, plot_comparison, read_summary, settings_table
from simulation.plots import plot_epsilon
from simulation.report import read_metrics

RED_NONE = "\x1b[1;31mnone"


def finished(folder: Path, private: bool, accuracy: float, client_epsilon: float | None = None, **over: Any) -> Path:
    folder.mkdir(parents=True)
    whole = {"client_level": {"mode": "distributed", "epsilon": client_epsilon}} if client_epsilon else {}
    config = make_config({"privacy": {"private": private}} | whole | over).model_dump(mode="json")
    (folder / "config.json").write_bytes(encode({"run": folder.name, "config": config}))
    records = [
        {"round": n, "asked": 2, "accepted": 2, "seconds": 1.5, "epsilon": n * 2.0 if private else None,
         "accuracy": accuracy * n / 2, "balanced_accuracy": accuracy * n / 3}
        | ({"client_epsilon": client_epsilon * n / 2} if client_epsilon and n else {})
        for n in range(3)
    ]  # fmt: skip
    (folder / "metrics.jsonl").write_text("\n".join(json.dumps(record) for record in records))
    summary: dict[str, Any] = {
        "private": private,
        "epsilon": 4.0 if private else None,
        "test_accuracy": accuracy,
        "test_balanced_accuracy": accuracy - 0.1,
        "device_accuracy_worst_tenth": None,
        "round_seconds": 1.5,
    } | ({"client_dp": "distributed", "client_epsilon": client_epsilon} if client_epsilon else {})
    (folder / "summary.json").write_bytes(encode(summary))
    return folder


def printed(thing: RenderableType, width: int = 80) -> str:
    console = Console(width=width, file=io.StringIO(), color_system="standard", force_terminal=True)
    console.print(thing)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_runs_stand_side_by_side_in_a_table_that_marks_the_one_without_privacy(tmp_path: Path) -> None:
    runs = names_of([finished(tmp_path / "a", True, 0.4), finished(tmp_path / "b", False, 0.6)])
    text = printed(comparison_table(runs))
    assert all(word in text for word in ("40.0%", "60.0%", "4.00", RED_NONE))
    assert "client" not in text


def test_a_promise_to_whole_devices_has_its_column_and_is_no_run_without_privacy(tmp_path: Path) -> None:
    runs = names_of([finished(tmp_path / f"c{n}", False, 0.5, client_epsilon=n) for n in (2.0, 8.0)])
    text = printed(comparison_table(runs))
    assert "client" in text
    assert "2.00" in text
    assert "8.00" in text
    assert "none" in text
    assert RED_NONE not in text
    mixed = printed(comparison_table(runs | {"open": finished(tmp_path / "open", False, 0.5)}))
    assert mixed.count(RED_NONE) == 2


def test_each_run_lists_the_settings_in_which_it_differs_within_eighty_columns(tmp_path: Path) -> None:
    first = finished(tmp_path / "a", False, 0.5, client_epsilon=2.0, server={"cohort": 10})
    second = finished(tmp_path / "b", False, 0.5, client_epsilon=8.0)
    text = printed(settings_table(names_of([first, second])))
    assert "In common: drawn faces, 20 clients" in text
    assert "server.cohort=10, client_level.epsilon=2" in text
    assert "server.cohort=unset, client_level.epsilon=8" in text
    assert "Every other setting is the same" in printed(settings_table(names_of([first, first])))
    assert "Settings: drawn faces" in printed(settings_table({"a": first}))


def test_a_folders_name_is_shown_as_it_is(tmp_path: Path) -> None:
    runs = names_of([finished(tmp_path / "[red]", True, 0.4), finished(tmp_path / "b", False, 0.4)])
    assert "[red]" in printed(comparison_table(runs))
    assert "[red]" in printed(settings_table(runs))


def test_plots_of_several_runs_are_pictures_with_something_on_them(tmp_path: Path) -> None:
    runs = names_of([finished(tmp_path / "a", True, 0.4), finished(tmp_path / "b", False, 0.6)])
    for plot in plot_comparison(runs, tmp_path / "out"):
        picture = cv2.imread(str(plot))
        assert picture is not None
        assert picture.std() > 5


def test_only_a_run_with_neither_promise_is_labelled_so_in_the_plot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: dict[str, tuple[str, list[float]]] = {}

    def keep(figure: Figure, path: Path) -> Path:
        for line in figure.axes[0].lines:
            lines[str(line.get_label())] = (str(line.get_linestyle()), [float(y) for y in np.asarray(line.get_ydata())])
        return path

    monkeypatch.setattr("simulation.plots._save", keep)
    runs = {
        "faces": finished(tmp_path / "a", True, 0.4),
        "devices": finished(tmp_path / "b", False, 0.4, client_epsilon=2.0),
        "both": finished(tmp_path / "c", True, 0.4, client_epsilon=8.0),
        "neither": finished(tmp_path / "d", False, 0.4),
    }
    plot_epsilon({name: read_metrics(folder) for name, folder in runs.items()}, tmp_path / "epsilon.png")
    assert lines == {
        "faces": ("-", [0.0, 2.0, 4.0]),
        "devices: client-level": ("--", [0.0, 1.0, 2.0]),
        "both: record-level": ("-", [0.0, 2.0, 4.0]),
        "both: client-level": ("--", [0.0, 4.0, 8.0]),
        "neither: NON-PRIVATE, no epsilon holds": ("-", []),
    }


def test_folders_of_the_same_name_keep_apart(tmp_path: Path) -> None:
    names = names_of([tmp_path / "x" / "run", tmp_path / "y" / "run", tmp_path / "z"])
    assert list(names) == ["run", "run (2)", "z"]


@pytest.mark.parametrize("content", [b"{}\n", b"nonsense", b"5\n", b"[" * 100_000])
def test_a_damaged_summary_is_an_error_and_not_a_row(tmp_path: Path, content: bytes) -> None:
    folder = finished(tmp_path / "a", True, 0.4)
    (folder / "summary.json").write_bytes(content)
    with pytest.raises(RunError, match=r"a/summary.json was altered or is damaged; fl-sim run --resume .*a writes it anew"):
        read_summary(folder)


@pytest.mark.parametrize(
    "change", [{"private": "yes"}, {"test_accuracy": "good"}, {"epsilon": None}, {"round_seconds": []}, {"client_epsilon": "x"}]
)
def test_figures_that_are_none_are_an_error_and_so_is_another_layout(tmp_path: Path, change: dict[str, Any]) -> None:
    folder = finished(tmp_path / "a", True, 0.4)
    path = folder / "summary.json"
    summary = json.loads(path.read_bytes())
    path.write_text(json.dumps(summary, indent=2))
    with pytest.raises(RunError, match=r"summary.json was altered"):
        read_summary(folder)
    path.write_bytes(encode(summary | change))
    with pytest.raises(RunError, match=r"summary.json was altered"):
        read_summary(folder)


def test_an_unfinished_run_says_how_to_go_on(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="fl-sim run --resume"):
        read_summary(tmp_path)
