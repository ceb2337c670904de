import json
from pathlib import Path
from typing import Any

import cv2
import pytest
from rich.console import Console

from common.canonical import encode
from common.config import RunConfig
from common.errors import RunError
from simulation.compare import comparison_table, names_of, plot_comparison, read_summary
from simulation.report import describe


def finished(folder: Path, private: bool, accuracy: float) -> Path:
    folder.mkdir(parents=True)
    config = RunConfig().model_dump(mode="json") | {"privacy": {"private": private}}
    (folder / "config.json").write_bytes(encode({"run": folder.name, "config": config}))
    records = [
        {"round": n, "asked": 2, "accepted": 2, "seconds": 1.5, "epsilon": n * 2.0 if private else None,
         "accuracy": accuracy * n / 2, "balanced_accuracy": accuracy * n / 3}
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
    }
    (folder / "summary.json").write_bytes(encode(summary))
    return folder


def test_runs_stand_side_by_side_in_a_table_that_marks_the_one_without_privacy(tmp_path: Path) -> None:
    runs = names_of([finished(tmp_path / "a", True, 0.4), finished(tmp_path / "b", False, 0.6)])
    console = Console(width=160, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(comparison_table(runs))
    console.file.close()
    text = console.export_text()
    assert all(word in text for word in ("40.0%", "60.0%", "4.00", "none", "non-private", "eps 8"))


def test_plots_of_several_runs_are_pictures_with_something_on_them(tmp_path: Path) -> None:
    runs = names_of([finished(tmp_path / "a", True, 0.4), finished(tmp_path / "b", False, 0.6)])
    for plot in plot_comparison(runs, tmp_path / "out"):
        picture = cv2.imread(str(plot))
        assert picture is not None
        assert picture.std() > 5


def test_folders_of_the_same_name_keep_apart(tmp_path: Path) -> None:
    names = names_of([tmp_path / "x" / "run", tmp_path / "y" / "run", tmp_path / "z"])
    assert list(names) == ["run", "run (2)", "z"]


@pytest.mark.parametrize("content", [b"{}\n", b"nonsense"])
def test_a_damaged_summary_is_an_error_and_not_a_row(tmp_path: Path, content: bytes) -> None:
    folder = finished(tmp_path / "a", True, 0.4)
    (folder / "summary.json").write_bytes(content)
    with pytest.raises(Exception, match=r"damaged|JSON"):
        read_summary(folder)


def test_an_unfinished_run_says_how_to_go_on(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="fl-sim run --resume"):
        read_summary(tmp_path)


def test_a_description_names_what_differs() -> None:
    assert describe(RunConfig()) == "drawn faces, 20 clients, dirichlet, alpha 0.3, eps 8, fedavg, full"
