"""A whole night from Python, in this process."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from tgq.settings.load import load_settings
from tgq.settings.sections import Settings


def nightly(
    settings: Settings | None = None, *, catalog: str | None = None, warehouse: str | None = None, profiles: Sequence[str] = ("local",),
    sets: Sequence[str] = (), run_id: str | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Run a whole night and return its figures, as `tgq nightly --summary` writes them.

    Args:
        settings: complete settings (`tgq.settings.load.load_settings`), in place of all that follows but run_id.
        catalog: folder, table or URI, as `--catalog`.
        warehouse: folder or URI, as `--warehouse`.
        profiles: names under conf/ or YAML files, as `--conf`.
        sets: 'key=value' strings, as `--set`.
        run_id: run to take part in; by default the interrupted one, else a new one.

    Raises:
        TgqError: as the command line would show it; GateError where the night was measured and not published.

    Examples:
        >>> tgq.nightly(catalog="demo", warehouse="warehouse", profiles=["local", "catalogs/demo"])  # doctest: +SKIP
    """
    from tgq.night.nightly import STEPS, Nightly
    from tgq.run.opening import held_night

    if settings is None:
        named = [f"{key}={json.dumps(value)}" for key, value in (("catalog.path", catalog), ("warehouse.path", warehouse)) if value is not None]
        settings = load_settings(profiles, [*sets, *named]).settings
    with held_night(settings, run_id, begins=True) as night:
        run = Nightly(night)
        run.run(list(STEPS))
        return run.summary()
