"""The study's catalogs: four shops, three of them also augmented and in a hard version, as tower features of their train and test groups."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from tgq.demo.catalog import draw_catalog
from tgq.encoder.config import EncoderConfig
from tgq.encoder.model import TGQFormer
from tgq.encoder.towers.parts import PartsTower
from tgq.errors import SourceError
from tgq.run.progress import Progress
from tgq.settings.load import load_settings
from tgq.spark.session import open_session
from tgq.training.data.dataset import TrainingSet
from tgq.training.data.scenes import Banks
from tgq.training_job.job import Source, read_source
from tgq.training_job.scene_parts import kept_banks

SHARED = Path(__file__).resolve().parents[2].parent / "shared"
SCENES = 0.6  # share of the augmented pictures that show other products too
# options of `tgq multiply`: in every picture other products, in half of them of the item's category, all smaller, and banners over most
HARD = ("--scenes", "1", "--same-category", "0.5", "--scene-size", "0.34", "0.48", "--banners", "0.6", "--wrong-titles", "0.1")
SLICES = ("distractors", "overlay", "background")  # columns with nuisances, which some catalogs have


@dataclass(frozen=True)
class Catalog:
    """A catalog and its source."""

    name: str
    shop: str  # transfer trains on catalogs of other shops only
    profile: str
    multiplied: int = 0  # number of augmented rows, or of drawn ones; 0 for the shop's own rows, or 2,000 drawn ones
    hard: bool = False  # multiplied with HARD; no other shop's encoder trains on it


CATALOGS = (
    Catalog("demo", "demo", "catalogs/demo"),
    Catalog("luma", "luma", "catalogs/luma"),
    Catalog("grocery", "grocery", "catalogs/grocery"),
    Catalog("fashion", "fashion", "catalogs/fashion"),
    Catalog("luma-x", "luma", "catalogs/luma", 2000),
    Catalog("grocery-x", "grocery", "catalogs/grocery", 1500),
    Catalog("fashion-x", "fashion", "catalogs/fashion", 4000),
    Catalog("luma-hard", "luma", "catalogs/luma", 2000, hard=True),
    Catalog("grocery-hard", "grocery", "catalogs/grocery", 1500, hard=True),
    Catalog("fashion-hard", "fashion", "catalogs/fashion", 4000, hard=True),
)


def catalog_named(name: str) -> Catalog:
    """The catalog with this name: one of CATALOGS, or `demo-N`, N drawn items.

    Raises:
        ArgumentTypeError: there is no such catalog.
    """
    known, drawn = {c.name: c for c in CATALOGS}, re.fullmatch(r"demo-([1-9]\d{2,6})", name)
    if name not in known and drawn is None:
        raise argparse.ArgumentTypeError(f"there is no catalog {name!r}: choose from {', '.join(known)}, or demo-N for N drawn items, from 100 on")
    return known.get(name) or Catalog(name, "demo", "catalogs/demo", int(name.removeprefix("demo-")))


def work_folder(work: Path, tower_input: dict[str, int]) -> Path:
    """The subfolder of `work` for these `image_size` and `closeups` of EncoderConfig."""
    return work / (f"{tower_input['image_size']}px" + f"-closeups-{tower_input['closeups']}" * bool(tower_input["closeups"]))


def folder_of(catalog: Catalog, work: Path) -> Path:
    """The catalog's folder. It is drawn or augmented at first use, next to `work`, since it does not depend on the towers' input.

    Raises:
        SourceError: the shop's data are missing.
    """
    if catalog.shop != "demo" and not (SHARED / "data" / catalog.shop / "catalog.parquet").is_file():
        raise SourceError(f"there is no {SHARED / 'data' / catalog.shop}", "leave its catalogs out, e.g. --catalogs demo")
    made = work.parent / "catalogs" / catalog.name
    if (made / "catalog.parquet").is_file():
        return made
    if catalog.shop == "demo":
        draw_catalog(made, items=catalog.multiplied or 2000, seed=catalog.multiplied)
    elif catalog.hard:
        tgq = Path(sys.executable).parent / "tgq"
        subprocess.run([tgq, "multiply", SHARED / "data" / catalog.shop, made, "--rows", str(catalog.multiplied), "--conf", "local", "--conf", catalog.profile,
                        *HARD], check=True)  # fmt: skip
    elif catalog.multiplied:
        made.mkdir(parents=True, exist_ok=True)
        source, partial = SHARED / "data" / catalog.shop, made / "partial.parquet"
        subprocess.run([sys.executable, SHARED / "tools" / "augment.py", source, partial, str(catalog.multiplied), "90000", "224", "", str(SCENES)],
                       check=True)  # fmt: skip
        partial.rename(made / "catalog.parquet")
    else:
        return SHARED / "data" / catalog.shop
    return made


def profile_of(catalog: Catalog, work: Path) -> str:
    """The profile that reads the catalog. Raises as `folder_of`."""
    return str(folder_of(catalog, work) / "profile.yaml") if catalog.hard else catalog.profile


def source_of(catalog: Catalog, work: Path) -> Source:
    """The catalog with its profile. Raises as `folder_of`."""
    return Source.of_catalog(f"{folder_of(catalog, work)}={profile_of(catalog, work)}", work / "warehouses")


def prepare(
    catalogs: tuple[Catalog, ...], tower_input: dict[str, int], work: Path, progress: Progress, sides: tuple[str, ...] = ("train", "test")
) -> None:  # fmt: skip
    """Run the default towers over all pictures that have no features yet; about 20 per second on two cores with close-ups.

    For train groups the parts of composed scenes are computed too.

    tower_input: `image_size` and `closeups` of EncoderConfig.
    """
    missing = [(c, side) for c in catalogs for side in sides if not features_file(c, side, work).is_file()]
    if not missing:
        return
    torch.manual_seed(0)
    encoder, start = TGQFormer(EncoderConfig(**tower_input)), work / "towers"
    encoder.save_pretrained(start)
    (work / "features").mkdir(parents=True, exist_ok=True)
    parts = PartsTower(encoder.vision).fingerprint
    kept_banks(encoder, progress).save(banks_file(work))
    with open_session(load_settings(["local"], []).settings) as spark:
        for catalog, side in missing:
            source = replace(source_of(catalog, work), name=catalog.name)
            rows = read_source(spark, source, encoder, start, "study", None, 0, progress, side, parts=parts if side == "train" else None)[0]
            rows.save(features_file(catalog, side, work))


def features(catalog: Catalog, side: str, work: Path) -> TrainingSet:
    """The features of one side, train or test, that `prepare` wrote; the train side has what scenes are composed of."""
    rows = TrainingSet.load(features_file(catalog, side, work))
    return replace(rows, banks=Banks.load(banks_file(work))) if side == "train" else rows


def labels(catalog: Catalog, side: str, work: Path) -> tuple[np.ndarray, np.ndarray]:
    """Item ids and groups of one side, without the features."""
    with np.load(features_file(catalog, side, work), allow_pickle=False) as arrays:
        return arrays["item"], arrays["group"]


def truth(catalog: Catalog, work: Path) -> pd.DataFrame:
    """The nuisances and the item's box by item_id, if the catalog has them."""
    frame = pd.read_parquet(folder_of(catalog, work) / "catalog.parquet")
    known = [name for name in (*SLICES, "box") if name in frame.columns]
    return frame.drop_duplicates("item_id").set_index("item_id")[known]


def features_file(catalog: Catalog, side: str, work: Path) -> Path:
    """The file with the features of one side."""
    return work / "features" / f"{catalog.name}-{side}.npz"


def banks_file(work: Path) -> Path:
    """The file with backgrounds and banners of composed scenes."""
    return work / "features" / "banks.npz"
