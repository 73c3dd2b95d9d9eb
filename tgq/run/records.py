"""Writes the row of each step to `pipeline_runs`."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import subprocess
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

from tgq.errors import GateError, TgqError
from tgq.messages import presentable
from tgq.run.night import Night, StepResult
from tgq.settings.load import flat
from tgq.settings.sections import Settings


def config_digest(settings: Settings) -> str:
    """A hash of every setting that can change a result, 16 hex digits."""
    ignored = ("spark.", "warehouse.lock", "warehouse.lease_seconds", "report.", "tracking.", "promote.", "embed.", "features.", "maintain.")
    relevant = {k: v for k, v in flat(settings).items() if not k.startswith(ignored) or k == "embed.retry_quarantined"}
    return hashlib.sha256(json.dumps(relevant, sort_keys=True, default=str).encode()).hexdigest()[:16]


@functools.cache
def git_commit() -> str | None:
    """The commit of the checkout; None if tgq was installed from a wheel."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None


def run_step(night: Night, step: str, function: Callable[[Night], StepResult]) -> StepResult:
    """Run and time a step, and write its row to `pipeline_runs`, also if it fails."""
    started, clock = datetime.now(timezone.utc), time.perf_counter()
    try:
        result = function(night)
    except Exception as e:
        error = error_line(e)
        status = "refused" if isinstance(e, GateError) else "failed"
        failed = StepResult(status=status, seconds=round(time.perf_counter() - clock, 3), figures={"error": error})
        with contextlib.suppress(Exception):  # the first error is the one to show
            record(night, step, status, started, datetime.now(timezone.utc), failed)
        raise
    result.seconds = round(time.perf_counter() - clock, 3)
    record(night, step, result.status, started, datetime.now(timezone.utc), result)
    return result


def error_line(error: Exception) -> str:
    """An error in one line, as rows and MLflow keep it: without control characters and passwords."""
    return str(error) if isinstance(error, TgqError) else presentable(f"{type(error).__name__}: {str(error)[:500]}")


def record(
    night: Night, step: str, status: str, started: datetime, ended: datetime | None, result: StepResult
) -> None:
    """Write the row of a step to `pipeline_runs`, replacing an earlier one."""
    row = dict(
        run_id=night.run_id, step=step, status=status, started_at=started, ended_at=ended,
        rows_in=result.rows_in, rows_out=result.rows_out, rows_quarantined=result.quarantined, rows_skipped=result.unchanged,
        versions_read=dict(result.versions_read), versions_written=dict(result.versions_written),
        git_commit=git_commit(), config_digest=config_digest(night.settings),
        detail=json.dumps(result.figures | {k: getattr(result, k) for k in ("embedded", "inactive", "seconds")}, default=str),
    )  # fmt: skip
    night.warehouse.replace("pipeline_runs", [row], {"run_id": night.run_id, "step": step})
