import io
import signal
import subprocess
import sys
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import pytest
from typer.testing import CliRunner

from common.config import RunConfig
from common.errors import ConfigError
from simulation.cli import app, main
from simulation.run_command import settle

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Ended:
    """What a shell sees of a program."""

    returncode: object
    stdout: str
    stderr: str


def fl_sim(*words: str, cwd: Path = ROOT) -> Ended:
    """`fl-sim` without the seconds that a new process takes; a traceback is this test's own."""
    out, err = io.StringIO(), io.StringIO()
    argv = patch.object(sys, "argv", ["fl-sim", *words])
    with chdir(cwd), argv, redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as end:
        main()
    return Ended(end.value.code or 0, out.getvalue(), err.getvalue())


def process(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", "from simulation.cli import main; main()", *words],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "COLUMNS": "100", "PYTHONPATH": str(ROOT), "HOME": "/nonexistent"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_help_lists_every_command_and_names_the_defaults() -> None:
    commands = ("run", "demo", "compare", "draw", "scene", "deal", "plan", "pretrain", "personalise")
    assert all(f"│ {command} " in fl_sim("--help").stdout for command in commands)
    text = process("run", "--help").stdout
    assert all(word in text for word in ("--epsilon", "--alpha", "--clients", "--backend", "--resume", "Privacy", "(default 20)"))


def test_a_process_ends_as_the_same_command_does_in_the_other_tests() -> None:
    words = ("run", "--mu", "0.1")
    done, seen = process(*words), fl_sim(*words)
    assert (done.returncode, done.stdout) == (seen.returncode, seen.stdout) == (2, "")
    assert done.stderr.split() == seen.stderr.split()


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["run", "--data", "nowhere.csv"], 3, "There is no"),
        (["run", "--epsilon", "-1"], 2, "privacy.epsilon is wrong"),
        (["run", "--epsilon", "3", "--non-private"], 2, "contradict"),
        (["run", "--clients", "5", "--cohort", "9"], 2, "A cohort of 9 cannot be drawn from 5 clients"),
        (["run", "--clients", "1"], 2, "min_replies 2 is more than the 1 clients"),
        (["run", "--clients", "90", "--drawn", "100"], 3, "at most 12 clients (--clients), or take at least 720 faces"),
        (["run", "--drawn", "99999999999999"], 2, "data.drawn is wrong: Input should be less than or equal to 1000000"),
        (["run", "--model", "resnet50"], 6, "There is no model 'resnet50'"),
        (["run", "--strategy", "fedprox"], 2, "set train.proximal_mu (--mu)"),
        (["run", "--mu", "0.1"], 2, "belongs to the strategy fedprox"),
        (["run", "--config", "nowhere.toml"], 2, "cannot be read"),
        (["run", "--config", "nul.toml"], 2, "NUL character"),
        (["run", "--resume", "nowhere"], 8, "is not a run folder"),
        (["run", "--resume", "x", "--epsilon", "3"], 2, "--resume goes on with the run's own settings"),
        (["run", "--seed", "99999999999999999999"], 2, "seed is wrong"),
        (["run", "--config", "wrong.toml"], 2, "wrong is not a setting"),
        (["run", "--config", "scalar.toml", "--epsilon", "4"], 2, "privacy is wrong"),
        (["run", "--workers", "0"], 2, "--workers must be at least 1"),
        (["run", "--workers", "1000"], 2, "--workers can be at most"),
        (["run", "--init", "nowhere"], 5, "Nothing is published"),
        (["run", "--loss", "class-balanced"], 2, "needs public counts"),
        (["run", "--loss", "class-balanced", "--class-counts", "happiness"], 2, "'happiness' is no count"),
        (["run", "--loss", "calibrated"], 2, "no epsilon would hold"),
        (["run", "--loss", "calibrated", "--non-private", "--class-counts", "happiness=3"], 2, "is missing or too much"),
        (["run", "--class-histogram", "--class-counts", "anger=1"], 2, "--class-histogram"),
        (["run", "--personal-head", "--trainable", "head"], 2, "nothing would be uploaded"),
        (["run", "--personal-head", "--trainable", "last-layer"], 2, "nothing would be uploaded"),
        (["run", "--no-augment", "--augmentations", "2"], 2, "leave out --no-augment"),
        (["personalise", "nowhere"], 8, "is not a run folder"),
        (["personalise", "nowhere", "--pull", "-1"], 2, "pull is wrong"),
        (["compare", "nowhere"], 8, "has not finished"),
        (["plan", "--examples", "99999999999999999999999"], 2, "--examples can be at most 10000000"),
        (["draw", "/proc/none"], 3, "cannot be written"),
    ],
)
def test_bad_input_is_one_sentence_with_its_exit_code_and_no_traceback(
    tmp_path: Path, words: list[str], code: int, sentence: str
) -> None:
    (tmp_path / "scalar.toml").write_text("privacy = 3\n")
    (tmp_path / "wrong.toml").write_text("[wrong]\nkey = 1\n")
    (tmp_path / "nul.toml").write_text('init = "x\\u0000y"\n')
    done = fl_sim(*words, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert not (tmp_path / "runs").exists(), "a run that cannot start leaves no folder that is in the way"
    assert sentence in done.stderr.replace("\n", " ")
    assert "Traceback" not in done.stderr
    assert done.stderr.count("error:") == 1


def test_numbers_of_faces_and_people_to_draw_have_a_limit_that_is_named(tmp_path: Path) -> None:
    for option, number in (("--count", "3000000000"), ("--people", "99999999999999999999")):
        done = CliRunner().invoke(app, ["draw", str(tmp_path / "x"), option, number])
        assert done.exit_code == 2
        assert "x<=100000" in done.output
    assert not (tmp_path / "x").exists()


def test_without_ray_no_run_folder_is_made_that_would_be_in_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "flwr.server.superlink.fleet.vce.backend.raybackend", None)
    done = fl_sim("run", "--backend", "ray", "--no-secure-aggregation", "--out", "a", cwd=tmp_path)
    assert done.returncode == 9
    assert "Ray is not installed" in done.stderr
    assert not (tmp_path / "a").exists()


def test_ferplus_labels_bring_their_eight_classes() -> None:
    assert len(settle({"data": {"labels": "ferplus"}}).model.classes) == 8
    assert len(settle({}).model.classes) == 7
    assert len(settle({"data": {"labels": "ferplus"}, "model": {"classes": ["anger", "fear"]}}).model.classes) == 2


def test_options_win_over_a_configuration_file_that_wins_over_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run.toml").write_text("[data]\nclients = 3\n[server]\nrounds = 7\n")
    played: list[RunConfig] = []
    monkeypatch.setattr("simulation.run_command.perform", lambda settings, *_: played.append(settings))
    assert fl_sim("run", "--config", "run.toml", "--clients", "5", cwd=tmp_path).returncode == 0
    assert (played[0].data.clients, played[0].server.rounds, played[0].train) == (5, 7, RunConfig().train)


def test_fedprox_needs_its_pull() -> None:
    with pytest.raises(ConfigError):
        settle({"server": {"strategy": "fedprox"}})
    assert settle({"server": {"strategy": "fedprox"}, "train": {"proximal_mu": 0.1}}).train.proximal_mu == 0.1


def test_drawn_faces_come_as_folders_of_emotions(tmp_path: Path) -> None:
    done = fl_sim("draw", str(tmp_path / "faces"), "--count", "14")
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "faces").glob("*/*.png"))) == 14
    again = fl_sim("draw", str(tmp_path / "faces"))
    assert again.returncode == 3
    assert "is not empty" in again.stderr


def workers_of(process: int) -> set[str]:
    """The worker processes that `process` has started and that have not ended."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return {child for child in children if works(child)}


def works(process: str) -> bool:
    try:
        return b"spawn_main" in Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.parametrize(("stop", "backend", "workers"), [(signal.SIGINT, "in-process", 0), (signal.SIGTERM, "processes", 2)])
def test_ctrl_c_and_sigterm_keep_the_finished_rounds_leave_no_faces_and_say_how_to_go_on(
    tmp_path: Path, stop: signal.Signals, backend: str, workers: int
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    words = f"run --backend {backend} --workers {workers or 1} --drawn 210 --clients 3 --rounds 50 --out stopped "
    words += "--model mobilenet_v2_tiny_128 --stem-stride 2 --local-steps 1"
    # A shell's background job ignores Ctrl-C, and its children do, too.
    program = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from simulation.cli import main; main()"
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", program, *words.split()],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "HOME": "/nonexistent", "TMPDIR": str(temporary)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert any(line.split()[:2] == ["round", "1/50"] for line in process.stdout), "the first round never ended"
        started = workers_of(process.pid)
        assert len(started) == workers
        assert bool(list(temporary.glob("emofl-*/images.npy"))) == (backend == "processes")
        process.send_signal(stop)
        _, said = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "fl-sim run --resume stopped" in said
    assert "Traceback" not in said
    assert (tmp_path / "stopped" / "checkpoint.safetensors").exists()
    assert not list(temporary.glob("emofl-*"))
    assert not any(works(worker) for worker in started)


def test_fl_sim_asks_for_it_before_all_else(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr("simulation.cli.keep_freed_memory", lambda: asked.append("kept"))
    assert CliRunner().invoke(app, ["compare"]).exit_code != 0
    assert asked == ["kept"]
