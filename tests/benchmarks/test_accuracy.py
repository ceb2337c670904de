import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from benchmarks.accuracy import half_base, halve, play
from benchmarks.accuracy_cells import CELLS, CLAIMS, START
from benchmarks.accuracy_claims import judge_claims, missed_claims
from benchmarks.accuracy_figures import Figures, Run, Stages, gather, merge, read_figures, write_figures
from benchmarks.accuracy_page import FIGURES, MARKS, PAGE, make_tables, publish
from benchmarks.accuracy_plot import plot_groups, plot_heads
from benchmarks.accuracy_results import Spread, make_lines
from common.canonical import encode
from common.errors import ConfigError, RunError
from models.pretrained import FOLDER, open_base
from models.pretraining.data import load_splits
from simulation.run import CONFIG
from tests.models.pretraining.test_data import MAJORITY, USAGES, write


def test_every_cell_is_a_run_that_fl_sim_takes_and_has_a_name_of_its_own(tmp_path: Path) -> None:
    for cell in CELLS:
        config = cell.config(str(tmp_path / "fer2013.csv"), str(tmp_path), seed=2)
        assert config.seed == 2
        assert str(config.init) == (str(tmp_path) if "scratch" not in cell.name else "None")
    assert len({cell.name for cell in CELLS}) == len(CELLS)


def test_claims_are_about_cells() -> None:
    names = {cell.name for cell in CELLS} | {START}
    assert {claim.cell for claim in CLAIMS} | {claim.against for claim in CLAIMS} <= names


def test_the_halves_share_no_training_face_and_all_test_faces(tmp_path: Path) -> None:
    write(tmp_path, [MAJORITY] * 6, USAGES)
    whole = load_splits(tmp_path)
    first, second = (load_splits(path) for path in halve(tmp_path / "fer2013.csv", tmp_path / "halves"))
    assert len(first.training) + len(second.training) == len(whole.training)
    assert abs(len(first.training) - len(second.training)) <= 1
    faces = [{image.tobytes() for image in half.training.images} for half in (first, second)]
    assert not faces[0] & faces[1]
    assert np.array_equal(first.test.images, whole.test.images)
    assert np.array_equal(second.test.images, whole.test.images)


SPREAD = ("mean", "worst_tenth", "best_tenth", "balanced")


def write_run(folder: Path, cell: str, seed: int, accuracy: float, base: str = "base model of 2026-11-22T04:24:50Z") -> Path:
    path = folder / "runs" / cell / f"seed-{seed}" / "summary.json"
    newest = path.parent / "registry" / "versions" / "000030-r0030" / "manifest.json"
    newest.parent.mkdir(parents=True)
    newest.write_text(json.dumps({"init": base}))
    (path.parent / "registry" / "LATEST").write_text("000030-r0030\n")
    figures = {
        "start_accuracy": 0.60,
        "test_accuracy": accuracy,
        "test_balanced_accuracy": accuracy / 2,
        "device_accuracy_worst_tenth": None,
    }
    figures |= {"epsilon": None, "client_epsilon": None, "rounds": 30, "accepted_rounds": 30}
    path.write_text(json.dumps(figures))
    return path


def test_a_line_is_the_mean_of_its_seeds_with_students_interval(tmp_path: Path) -> None:
    for seed, accuracy in enumerate((0.60, 0.62, 0.64)):
        write_run(tmp_path, "central/base", seed, accuracy)
    (line,) = make_lines(gather(tmp_path))
    assert (line.name, line.seeds) == ("central/base", {0: 0.60, 1: 0.62, 2: 0.64})
    assert line.accuracy.mean == pytest.approx(0.62)
    assert line.accuracy.margin == pytest.approx(4.303 * 0.02 / np.sqrt(3))
    assert str(line.accuracy) == "62.0 ± 5.0 %"
    assert line.shifted is None


def test_differences_have_the_interval_of_pairs_of_one_seed(tmp_path: Path) -> None:
    for seed, accuracy in enumerate((0.60, 0.62, 0.64)):
        write_run(tmp_path, "central/base", seed, accuracy)
        write_run(tmp_path, "fedavg/base-alpha-0.3-20", seed, accuracy - 0.01)
    central, start = judge_claims(make_lines(gather(tmp_path)))
    assert central.measured == "1.0 ± 0.0 points below"
    assert start.measured == "1.0 ± 5.0 points above"


@pytest.mark.parametrize(("accuracy", "missed"), [(0.60, 2), (0.61, 1), (0.63, 0)])
def test_a_claim_that_does_not_hold_is_named_once_its_runs_are_there(tmp_path: Path, accuracy: float, missed: int) -> None:
    assert missed_claims(make_lines(gather(tmp_path))) == []
    write_run(tmp_path, "central/base", 0, 0.62)
    write_run(tmp_path, "fedavg/base-alpha-0.3-20", 0, accuracy)
    sentences = missed_claims(make_lines(gather(tmp_path)))
    assert len(sentences) == missed
    if missed:
        assert f"{100 * (accuracy - 0.60):.1f} points above its own start instead of at least 2 points above" in sentences[-1]


def test_each_group_of_runs_gets_a_picture(tmp_path: Path) -> None:
    for cell in ("central/base", "fedavg/base-alpha-0.3-20", "fedavg/block-iid-20"):
        write_run(tmp_path, cell, 0, 0.6)
    found = plot_groups(make_lines(gather(tmp_path)), tmp_path / "plots")
    heads = {"personal/kept-alpha-0.1": dict.fromkeys(Stages.model_fields, dict.fromkeys(SPREAD, Spread(0.6, None)))}
    found.append(plot_heads(heads, tmp_path / "plots" / "personal.png"))
    assert [path.name for path in found] == ["central.png", "fedavg.png", "personal.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in found)


def one_run(seed: int, base: str, accuracy: float = 0.6) -> Run:
    return Run(seed=seed, base=base, test_accuracy=accuracy, test_balanced_accuracy=0.5, start_accuracy=0.61)


def test_figures_outlive_their_folder_and_new_ones_win(tmp_path: Path) -> None:
    known: Figures = {"central/base": [one_run(0, "a"), one_run(1, "a")], "fedavg/base-iid-20": [one_run(0, "a")]}
    write_figures(tmp_path / FIGURES, known)
    assert read_figures(tmp_path / FIGURES) == known
    assert read_figures(tmp_path / "none.json") == {}
    merged = merge(known, {"central/base": [one_run(1, "a", 0.7)], "central/scratch": [one_run(0, "")]})
    assert list(merged) == ["central/base", "central/scratch", "fedavg/base-iid-20"]
    assert [(run.seed, run.test_accuracy) for run in merged["central/base"]] == [(0, 0.6), (1, 0.7)]


def test_a_run_whose_folder_tells_less_keeps_what_was_known_of_it() -> None:
    full = one_run(0, "a").model_copy(update={"test_balanced_evened": 0.58})
    assert merge({"central/base": [full]}, {"central/base": [one_run(0, "a")]}) == {"central/base": [full]}
    other = one_run(0, "a", 0.7)
    assert merge({"central/base": [full]}, {"central/base": [other]}) == {"central/base": [other]}
    (line,) = make_lines({"central/base": [full, one_run(1, "a")]})
    assert line.evened is None, "a mean over fewer seeds than the line has"


def test_no_mean_is_taken_and_no_claim_judged_over_runs_from_different_bases() -> None:
    known: Figures = {"central/base": [one_run(0, "a"), one_run(1, "a")], "fedavg/base-alpha-0.3-20": [one_run(0, "a", 0.5)]}
    few = merge(known, {"central/base": [one_run(2, "b", 0.9)]})
    assert [run.base for run in few["central/base"]] == ["a", "a"], "fewer seeds replaced more"
    many = merge(known, {"central/base": [one_run(seed, "b", 0.9) for seed in range(2)]})
    assert [run.base for run in many["central/base"]] == ["b", "b"]
    comparison, _ = judge_claims(make_lines(many))
    assert comparison.above is None
    assert not comparison.met
    assert "not comparable" in missed_claims(make_lines(many))[0]


def test_a_run_knows_the_base_that_it_began_with_and_counts_once_it_is_complete(tmp_path: Path) -> None:
    write_run(tmp_path, "central/base", 0, 0.6)
    partly = write_run(tmp_path, "central/base", 1, 0.6)
    partly.write_text(partly.read_text().replace('"accepted_rounds": 30', '"accepted_rounds": 29'))
    write_run(tmp_path, "central/scratch", 0, 0.3, base="random")
    write_run(tmp_path, "central/scratch", 1, 0.3).parent.rename(tmp_path / "runs" / "central" / "scratch" / "seed-1-old")
    write_run(tmp_path, "central/block", 0, 0.5).unlink()
    lines = make_lines(gather(tmp_path))
    assert [(line.name, len(line.seeds), line.base_words) for line in lines] == [
        ("central/base", 1, "2026-11-22"),
        ("central/scratch", 1, "none"),
    ]


def test_damaged_figures_of_a_run_are_one_sentence(tmp_path: Path) -> None:
    path = write_run(tmp_path, "central/base", 0, 0.6)
    path.write_text(path.read_text()[:-10])
    with pytest.raises(RunError, match=r"seed-0 cannot be read \(JSONDecodeError\): move it away"):
        gather(tmp_path)


def test_the_halves_are_made_of_what_the_reader_takes(tmp_path: Path) -> None:
    """Columns in another order, quoted: nothing that is read differently here than where the faces are loaded."""
    write(tmp_path, [MAJORITY] * 6, USAGES)
    path = tmp_path / "fer2013.csv"
    before = [half.read_bytes() for half in halve(path, tmp_path / "halves")]
    lines = [line.split(",") for line in path.read_text().splitlines()]
    path.write_text("".join(f'{label},"{usage}",{pixels}\n' for label, pixels, usage in lines) + "\n")
    assert [half.read_bytes() for half in halve(path, tmp_path / "again")] == before


def test_another_number_of_faces_is_another_base(tmp_path: Path) -> None:
    shutil.copytree(FOLDER, tmp_path / "base")
    with pytest.raises(ConfigError, match="--base-images 2699968"):
        half_base(tmp_path / "fer2013.csv", tmp_path, 400_000)
    for images in (2_699_968, 2_700_000):
        assert half_base(tmp_path / "fer2013.csv", tmp_path, images) == tmp_path / "base", "training ends with a whole batch"


def test_a_run_goes_on_with_its_own_base_only(tmp_path: Path) -> None:
    cell = next(cell for cell in CELLS if cell.name == "central/block")
    run = write_run(tmp_path, cell.name, 0, 0.6).parent
    settings = cell.config(str(tmp_path / "fer2013.csv"), str(FOLDER), 0).model_dump(mode="json")
    del settings["server"]["keep_models"]
    (run / CONFIG).write_bytes(encode({"run": "one", "config": settings}))
    with pytest.raises(ConfigError, match="began with another base"):
        play(cell, tmp_path / "fer2013.csv", FOLDER, tmp_path, 1, 1)
    made = open_base(FOLDER).manifest.created
    (run / "registry" / "versions" / "000030-r0030" / "manifest.json").write_text(json.dumps({"init": f"base model of {made}"}))
    play(cell, tmp_path / "fer2013.csv", FOLDER, tmp_path, 1, 1)
    summary = run / "summary.json"
    summary.write_text(summary.read_text().replace('"accepted_rounds": 30', '"accepted_rounds": 3'))
    with pytest.raises(RunError, match="Not every round"):
        play(cell, tmp_path / "fer2013.csv", FOLDER, tmp_path, 1, 1)


@pytest.mark.parametrize("content", [b"{", b"[1]", b'{"central/base": [{"seed": 0}]}'])
def test_a_file_of_other_things_is_no_figures(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FIGURES).write_bytes(content)
    with pytest.raises(ConfigError, match="does not hold the figures of runs"):
        read_figures(tmp_path / FIGURES)


def test_publishing_rewrites_the_tables_between_their_marks_and_the_pictures_that_are_shown(tmp_path: Path) -> None:
    docs, heads = tmp_path / "docs", dict(zip(SPREAD, (0.7, 0.2, 0.9, 0.6), strict=True))
    (docs / "images").mkdir(parents=True)
    page = "# One\n<!-- runs -->\nold\n<!-- /runs -->\n![](images/accuracy_fedavg.png)\n"
    page += "".join(f"<!-- {mark} -->\n<!-- /{mark} -->\n" for mark in MARKS if mark != "runs") + "end\n"
    (docs / PAGE).write_text(page)
    own = one_run(0, "a").model_copy(update={"heads": Stages(before=heads, shifted=heads, after=heads)})
    fedavg = [one_run(0, "a", 0.6), one_run(1, "a", 0.62)]
    figures: Figures = {"central/base": [one_run(0, "a")], "fedavg/base-alpha-0.3-20": fedavg, "personal/kept-alpha-0.1": [own]}
    publish(docs, figures, plot_groups(make_lines(figures), tmp_path / "plots"))
    text = (docs / PAGE).read_text()
    assert "| `fedavg/base-alpha-0.3-20` | a | 2 | 61.0 ± 12.7 % | 50.0 ± 0.0 % |  |  |  | 61.0 % |  |" in text
    assert "| a | FER2013's labels | 61.0 % |  |  |  |" in text
    assert "|  | own head | 70.0 % | 20.0 % | 90.0 % | 60.0 % |" in text
    start = "| `fedavg/base-alpha-0.3-20` |"
    assert f"{start} at most 1.5 points below `central/base` | 0.0 points above | met | 2 |" in text
    assert f"{start} at least 2 points above its own start | 0.0 ± 12.7 points above | **missed** | 2 |" in text
    assert "\nNot played: `central/votes`, " in text
    assert ", `fedavg/base-alpha-0.1-20`, `fedavg/base-alpha-1-20`, " in text
    assert "old" not in text
    assert text.startswith("# One\n")
    assert text.endswith("\nend\n")
    assert [path.name for path in (docs / "images").iterdir()] == ["accuracy_fedavg.png"]
    (docs / PAGE).write_text("no marks")
    with pytest.raises(ConfigError, match="between which it is written"):
        publish(docs, figures, [])


def test_the_page_shows_the_figures_beside_it() -> None:
    docs = Path(__file__).parents[2] / "docs"
    text = (docs / PAGE).read_text()
    for mark, table in make_tables(read_figures(docs / FIGURES)).items():
        assert f"<!-- {mark} -->\n{table}<!-- /{mark} -->" in text
