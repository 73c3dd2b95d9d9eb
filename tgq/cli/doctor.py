"""`tgq doctor`: checks that this machine is ready for a nightly run. Writes nothing but a probe file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from tgq.errors import MachineError, TgqError
from tgq.settings.sections import Settings

MINIMUM_MEMORY_GB = 4


def checks(settings: Settings) -> Iterator[tuple[str, bool, str]]:
    """Run the checks one by one. Yields (name, passed, what was found)."""
    for name, check in (
        ("java", _java),
        ("delta jars", _jars),
        ("class archive", _classes),
        ("memory", _memory),
        ("gpu", _gpu),
        ("tower weights", _towers),
        ("encoder", _encoder),
        ("feature cache", _features),
        ("warehouse", _warehouse),
    ):
        yield _run(name, check, settings)


def _run(name: str, check: Callable[[Settings], str], settings: Settings) -> tuple[str, bool, str]:
    try:
        return name, True, check(settings)
    except TgqError as e:
        return name, False, str(e)


def _java(settings: Settings) -> str:
    from tgq.spark.jars import java_version

    return f"Java {java_version()}"


def _jars(settings: Settings) -> str:
    from tgq.spark.jars import jars_folder

    jars = list(jars_folder().glob("*.jar"))
    if not jars:
        raise MachineError(f"no Delta JARs in {jars_folder()}", "run `tgq setup`, or any step with a network")
    return f"{len(jars)} in {jars_folder()}"


def _classes(settings: Settings) -> str:
    from tgq.spark.class_archive import archive_file
    from tgq.spark.jars import jars_folder

    file = archive_file() if jars_folder().is_dir() else None
    return str(file) if file and file.is_file() else "none; `tgq setup` makes one, and Spark then starts a quarter faster"


def _memory(settings: Settings) -> str:
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    total = pages * size / 2**30
    if total < MINIMUM_MEMORY_GB:
        raise MachineError(f"this machine has {total:.1f} GiB of memory", f"use one with {MINIMUM_MEMORY_GB} GiB or more")
    return f"{total:.1f} GiB, {os.cpu_count()} cores; the Spark driver may use {settings.spark.driver_memory}"


def _gpu(settings: Settings) -> str:
    import torch

    from tgq.inference.device import choose_device

    device = choose_device(settings.encoder.device)
    found = [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    return f"{', '.join(found) or 'none'}; encoder.device={settings.encoder.device} selects {device}"


def _towers(settings: Settings) -> str:
    from tgq.encoder.towers.hub import prepare_models

    return ", ".join(f"{name} in {folder}" for name, folder in prepare_models().items())


def _encoder(settings: Settings) -> str:
    from tgq.registry.loading import versions_of
    from tgq.registry.selection import model_folder

    folder = model_folder(settings)
    return f"model {versions_of(folder)[0]} in {folder}"


def _features(settings: Settings) -> str:
    from tgq.encoder.model import TGQFormer
    from tgq.registry.selection import model_folder

    budget = settings.features.max_gb
    if not budget:
        return "off (features.max_gb=0); the towers run over the whole catalog again after each new connector"
    encoder = TGQFormer.from_pretrained(model_folder(settings))
    vision, text = encoder.vision, encoder.text
    image = 2 * (vision.tokens_per_image * vision.width + vision.pooled_width)
    metadata = 2 * (text.max_length * text.width + 2 * text.pooled_width)
    return (f"features.max_gb={budget:g} holds at least {budget * 2**30 / (image + metadata):,.0f} items "
            f"(before compression {image / 1000:.0f} kB per picture and {metadata / 1000:.0f} kB per text)")  # fmt: skip


def _warehouse(settings: Settings) -> str:
    from tgq.storage.paths import absolute, ensure_writable

    root = absolute(settings.warehouse.path)
    new = "://" not in root and not Path(root).exists()
    ensure_writable(root)
    if new:
        Path(root).rmdir()
    return f"{root} is writable"
