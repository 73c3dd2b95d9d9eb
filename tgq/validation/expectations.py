"""Expectations on a row of figures, checked and rendered by Great Expectations.

Spark computes the figures. Great Expectations gets them as a single row, so its cost does not depend on the catalog's size. Its
analytics, progress bars and files are disabled.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

# Data Docs pages refer to scripts, fonts and pictures on other hosts. They are removed, so that the page opens without network access.
_REMOTE = re.compile(r"<script\b.*?</script>|<style\b.*?</style>|<link\b[^>]*>|<iframe\b.*?</iframe>|<img\b[^>]*https?://[^>]*>", re.DOTALL | re.IGNORECASE)
_ADVERT = re.compile(r"<footer\b.*?</footer>", re.DOTALL | re.IGNORECASE)
_HEAD = """<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<style>
:root { color-scheme: light dark }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 68rem; margin: 2rem auto; padding: 0 1.5rem }
table { border-collapse: collapse; width: 100%; margin: 1rem 0 }
th, td { text-align: left; vertical-align: top; padding: .45rem .7rem; border-bottom: 1px solid #8885 }
.table-cell-sublist, ul { margin: 0; padding-left: 1.1rem }
nav, button, .btn, .modal, .d-none, .popover, .fa, .alert-icon { display: none !important }
.alert-success, .text-success { color: #2a9d62 } .alert-danger, .text-danger { color: #d1493f }
</style>"""


@dataclass(frozen=True)
class Expect:
    """A figure must lie between two bounds, both inclusive.

    A failed `critical` expectation stops the run. A failed `warning` is shown, and the run continues.
    """

    figure: str
    says: str
    low: float | None = None
    high: float | None = None
    severity: Literal["critical", "warning"] = "critical"

    @property
    def bound(self) -> str:
        """The bounds in words."""
        if self.low == self.high:
            return f"exactly {self.low:g}"
        if self.high is None:
            return f"at least {self.low:g}"
        return f"at most {self.high:g}" if self.low is None else f"between {self.low:g} and {self.high:g}"


@dataclass(frozen=True)
class Outcome:
    """The result of one expectation."""

    expect: Expect
    found: Any
    passed: bool

    def __str__(self) -> str:
        found = f"{self.found:.6g}" if isinstance(self.found, float) else str(self.found)
        return f"{self.expect.figure} is {found}, must be {self.expect.bound} ({self.expect.says})"


@dataclass(frozen=True)
class Verdict:
    """All outcomes of a suite in its order, with Great Expectations' result as JSON and as an HTML page."""

    outcomes: tuple[Outcome, ...]
    result: dict[str, Any]
    page: str

    def failed(self, severity: str) -> list[Outcome]:
        return [o for o in self.outcomes if not o.passed and o.expect.severity == severity]


def judge(suite: str, expectations: Sequence[Expect], figures: Mapping[str, Any]) -> Verdict:
    """Run a suite over the figures. An expectation on a missing figure or NaN fails."""
    gx = import_great_expectations()
    names = list(dict.fromkeys(e.figure for e in expectations))
    # Great Expectations passes a null cell; infinity lies outside of every bound
    row = {n: float("inf") if figures.get(n) is None or figures[n] != figures[n] else figures[n] for n in names}
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = gx.data_context.types.base.ProgressBarsConfig(globally=False, metric_calculations=False)
    batch = context.data_sources.add_pandas("figures").add_dataframe_asset(suite).add_batch_definition_whole_dataframe("night")
    made = [
        gx.expectations.ExpectColumnValuesToBeBetween(
            column=e.figure, min_value=e.low, max_value=e.high, severity=e.severity, description=e.says, meta={"position": n}
        )
        for n, e in enumerate(expectations)
    ]
    asked = context.suites.add(gx.ExpectationSuite(suite, expectations=made))
    definition = context.validation_definitions.add(gx.ValidationDefinition(name=suite, data=batch, suite=asked))
    done = definition.run(batch_parameters={"dataframe": pd.DataFrame([row])}, result_format="COMPLETE")
    passed = {r.expectation_config.meta["position"]: bool(r.success) for r in done.results}
    outcomes = tuple(Outcome(e, figures.get(e.figure), passed[n]) for n, e in enumerate(expectations))
    return Verdict(outcomes, done.to_json_dict(), _page(done))


def import_great_expectations() -> Any:
    """The library, which takes 5 s to import."""
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    import great_expectations as gx
    import great_expectations.expectations

    return gx


def _page(result: Any) -> str:
    from great_expectations.render.renderer import ValidationResultsPageRenderer
    from great_expectations.render.view import DefaultJinjaPageView

    page = DefaultJinjaPageView().render(ValidationResultsPageRenderer().render(result))
    return _ADVERT.sub("", _REMOTE.sub("", page)).replace("<head>", _HEAD, 1)
