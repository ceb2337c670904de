import signal
import threading

import pytest

from common.sigterm import sigterm_stops


def test_the_first_sigterm_is_a_ctrl_c_and_a_second_does_not_disturb_what_is_cleared_up() -> None:
    before = signal.getsignal(signal.SIGTERM)
    cleared: list[bool] = []

    @sigterm_stops()
    def work() -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            signal.raise_signal(signal.SIGTERM)
            cleared.append(True)

    with pytest.raises(KeyboardInterrupt):
        work()
    assert cleared
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_thread_that_cannot_take_signals_goes_on_without() -> None:
    before, seen = signal.getsignal(signal.SIGTERM), []

    def work() -> None:
        with sigterm_stops():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]
