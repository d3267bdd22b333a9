"""Signals as a flag: the first asks, the second insists, and afterwards all is as before."""

from __future__ import annotations

import signal
import threading

import pytest

from speech.stop import stop_signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)
def test_the_first_signal_sets_the_flag(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with stop_signals() as stop:
        assert not stop.is_set
        signal.raise_signal(number)
        assert stop.is_set
    assert signal.getsignal(number) is before


def test_the_second_signal_acts_as_usual() -> None:
    before = signal.getsignal(signal.SIGINT)
    with stop_signals():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_outside_the_main_thread_signals_are_left_alone() -> None:
    flags = []

    def work() -> None:
        with stop_signals() as stop:
            flags.append((stop.is_set, signal.getsignal(signal.SIGTERM)))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert flags == [(False, before)]
