"""Commits encoded slices on a second driver thread, while the executors encode the next ones."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor

from tgq.embedding.feature_cache import cache_features, free_space
from tgq.embedding.plan import Plan
from tgq.embedding.slices import Staged, commit_slices, staged
from tgq.registry.loading import Towers, versions_of
from tgq.run.night import Night

POOL = "commit"  # with spark.scheduler.mode=FAIR the small jobs of a commit get the next free core, not the last one


class Committer:
    """Commits batches in order, one at a time. Leaving its context waits for the last commit.

    Attributes:
        space: bytes left in the feature cache after the last commit.
        seconds: duration of the last commit; 0 before the first.
    """

    def __init__(self, night: Night, plan: Plan, towers: Towers, space: int):
        self._night, self._plan, self._towers = night, plan, towers
        self.space, self.seconds = space, 0.0
        self._thread = ThreadPoolExecutor(1, "commit")
        self._last: Future[None] | None = None

    def __enter__(self) -> Committer:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                self.wait()
        finally:
            self._thread.shutdown()

    def put(self, encoded: Staged) -> None:
        """Commit a batch as soon as the one before is committed. Waits only for that one.

        Raises:
            Exception: the error of the commit before.
        """
        self.wait()
        self._last = self._thread.submit(self._commit, encoded)

    def wait(self) -> None:
        """Wait for the last commit.

        Raises:
            Exception: its error.
        """
        if self._last:
            self._last.result()

    def _commit(self, encoded: Staged) -> None:
        night, plan, began = self._night, self._plan, time.perf_counter()
        night.spark.sparkContext.setLocalProperty("spark.scheduler.pool", POOL)
        # features first: an item with an embedding is no longer pending, so after a kill its features would never be cached
        if encoded.new_features and self.space > 0:
            transaction = f"tgq-features-{plan.attempt}", encoded.batch[0].number
            cache_features(night, staged(night, plan, encoded.batch), self._towers, transaction)
            self.space = free_space(night)
        commit_slices(night, plan, encoded, *versions_of(night.model_folder))
        self.seconds = time.perf_counter() - began
