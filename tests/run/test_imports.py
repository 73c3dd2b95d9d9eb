"""Imports while something else is waited for."""

from threading import Event

from tgq.run.imports import importing


def test_the_block_and_the_imports_run_at_once_and_are_both_done_at_its_end():
    inside, done = Event(), []

    def slow():
        assert inside.wait(10)
        done.append("slow")

    def broken():
        raise ImportError("no module named nothing")

    with importing(broken, slow):
        assert not done
        inside.set()
    assert done == ["slow"]
