"""A night that is killed, at any moment and whatever part of it, leaves nothing behind that the same command does not mend."""

from __future__ import annotations

import time

import pytest

from tests.chaos.contents import contents_of, differences, generation_of, nights_done, staged
from tests.chaos.moments import FULL, Moment, moments, strike
from tests.chaos.process import NightProcess, line_of
from tests.chaos.reader import Reader

TRIES = 3  # the command is repeated by its scheduler
KILLS = moments(60, seed=11) if FULL else [Moment("first", "write", 0.9, 0.02, "group", 1)]


@pytest.mark.parametrize("moment", KILLS, ids=lambda m: f"{m.night}-{m.at}-{m.share:.2f}-{m.target}")
def test_a_killed_night_is_finished_by_the_same_command(nights, tiny_encoder, tmp_path, table, moment):
    night, seconds = nights(moment.night), nights(moment.night).seconds
    for number in range(TRIES):  # a night that ends before its moment is repeated, with the moment at the same share of its length
        root = tmp_path / f"warehouse-{number}"
        night.prepare(root)
        with Reader(root, night.states) as reader:
            first = NightProcess(night.catalog, root, tiny_encoder)
            met = strike(first, moment, seconds, night.writes, root)
            struck, generation = time.monotonic() - first.began, generation_of(root)
            status, printed = first.wait()
            if met == "ended" and number + 1 < TRIES:
                seconds = struck
                continue
            said, runs = line_of(printed) if status > 0 else None, 1
            if status and nights_done(root) > nights_done(night.before):
                status, met = 0, "killed when it was done"  # the same command would begin the next night
            while status != 0 and runs <= TRIES:
                again = NightProcess(night.catalog, root, tiny_encoder)
                status, printed = again.wait()
                runs += 1
            assert status == 0, printed[-3000:]
        break
    reader.look()
    contents = contents_of(root)
    found = differences(contents, night.wanted) + ([f"{contents.failed} runs failed"] if contents.failed else [])
    table({"test": "killed", **vars(moment), "met": met, "after": round(struck, 2), "before_publication": generation != generation_of(root),
           "runs": runs, "said": said, "looks": reader.looks, "wrong": reader.wrong, "differences": found, "staged": staged(root)})  # fmt: skip
    assert not reader.wrong, reader.wrong
    assert not found, "\n".join(found)
    assert not staged(root) or met == "killed when it was done", "the next night removes them"
    assert runs <= 2, f"it took {runs} runs"
    assert reader.looks["new"], "the new generation was never seen"
