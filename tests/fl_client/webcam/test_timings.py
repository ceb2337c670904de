import itertools

import pytest

from fl_client.webcam.pace import PaceMeter
from fl_client.webcam.seen import Pace
from fl_client.webcam.timings import WHOLE, Timings


def test_each_stage_is_averaged_over_all_frames_also_those_that_left_it_out() -> None:
    ticks = iter([0.0, 0.008, 0.010, 0.012, 0.020, 0.024, 1.0, 1.004])
    timings = Timings(clock=lambda: next(ticks))
    for name in ("classify", "detect", "detect"):
        with timings.stage(name):
            pass
    timings.next_frame()
    with timings.stage("classify"):
        pass
    timings.next_frame()
    detect, classify, whole = timings.rows()
    assert (detect.stage, classify.stage, whole.stage) == ("detect", "classify", WHOLE)
    assert (detect.mean, detect.most) == (pytest.approx(3), pytest.approx(6))
    assert (classify.mean, whole.mean) == (pytest.approx(6), pytest.approx(9))
    assert detect.share + classify.share == pytest.approx(1) == whole.share


def test_a_stage_that_fails_is_timed_too_and_the_error_goes_on() -> None:
    timings = Timings()
    with pytest.raises(ValueError, match="broken"), timings.stage("draw"):
        raise ValueError("broken")
    timings.next_frame()
    assert [row.stage for row in timings.rows()] == ["draw", WHOLE]


def test_a_camera_that_runs_for_days_fills_no_memory() -> None:
    clock = itertools.count()
    timings = Timings(clock=lambda: float(next(clock)), keep=3)
    for _ in range(10):
        with timings.stage("draw"):
            pass
        timings.next_frame()
    assert timings.frames == 10
    assert len(timings._kept) == 3
    assert timings.rows()[0].mean == pytest.approx(1000)


def test_without_frames_there_is_nothing_to_tell() -> None:
    assert Timings().rows() == []


def test_the_pace_settles_on_the_frame_rate_and_the_latency() -> None:
    now = [0.0]
    meter = PaceMeter(lambda: now[0])
    assert meter.pace == Pace()
    for _ in range(100):
        now[0] += 0.05
        meter.step(now[0] - 0.03)
    assert meter.pace.fps == pytest.approx(20)
    assert meter.pace.latency == pytest.approx(30)


def test_files_have_no_latency() -> None:
    now = [0.0]
    meter = PaceMeter(lambda: now[0])
    now[0] = 0.5
    meter.step(None)
    assert meter.pace == Pace(pytest.approx(2), None)
