"""Ctrl-C whose exception was swallowed is heeded at the next step."""

import signal
import sys
import weakref

import pytest

from kontrast import interrupts


class Thing:
    pass


def swallowed(monkeypatch):
    """Press Ctrl-C where Python can only report the exception and go on."""
    reported = []
    monkeypatch.setattr(sys, "unraisablehook", reported.append)
    thing = Thing()
    watch = weakref.ref(thing, lambda _: signal.raise_signal(signal.SIGINT))
    del thing
    assert watch() is None
    assert [entry.exc_type for entry in reported] == [KeyboardInterrupt]


@pytest.fixture(autouse=True)
def default_handler():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_swallowed_ctrl_c_is_raised_by_the_next_check(monkeypatch):
    with interrupts.remembered():
        interrupts.check()
        swallowed(monkeypatch)
        with pytest.raises(KeyboardInterrupt):
            interrupts.check()
    interrupts.check()


def test_ctrl_c_raises_where_it_was_pressed():
    with pytest.raises(KeyboardInterrupt), interrupts.remembered():
        signal.raise_signal(signal.SIGINT)
    interrupts.check()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_handler_of_the_callers_own_is_left_alone(monkeypatch):
    pressed = []
    signal.signal(signal.SIGINT, lambda *_: pressed.append(1))
    with interrupts.remembered():
        signal.raise_signal(signal.SIGINT)
        interrupts.check()
    assert pressed == [1]
