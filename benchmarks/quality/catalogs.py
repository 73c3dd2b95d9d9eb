"""The study's catalogs: four shops, three of them also multiplied, each as tower features of its train and its test groups."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from tgq.demo.catalog import draw_catalog
from tgq.encoder.model import EncoderConfig, TGQFormer
from tgq.errors import SourceError
from tgq.run.progress import Progress
from tgq.settings.load import load_settings
from tgq.storage.session import open_session
from tgq.training.data.dataset import TrainingSet
from tgq.training_job.job import Source, read_source

SHARED = Path(__file__).resolve().parents[2].parent / "shared"
SCENES = 0.6  # share of the multiplied pictures that show other products too
SLICES = ("distractors", "overlay", "background")  # nuisances, where a catalog knows them


@dataclass(frozen=True)
class Catalog:
    """A catalog and where it comes from."""

    name: str
    shop: str  # whose groups it has: never trained on for a measurement of the same shop's transfer
    profile: str
    multiplied: int = 0  # rows of the seeded multiplier, 0 for the shop as it is


CATALOGS = (
    Catalog("demo", "demo", "catalogs/demo"),
    Catalog("luma", "luma", "catalogs/luma"),
    Catalog("grocery", "grocery", "catalogs/grocery"),
    Catalog("fashion", "fashion", "catalogs/fashion"),
    Catalog("luma-x", "luma", "catalogs/luma", 2000),
    Catalog("grocery-x", "grocery", "catalogs/grocery", 1500),
    Catalog("fashion-x", "fashion", "catalogs/fashion", 4000),
)


def place_of(work: Path, sight: dict[str, int]) -> Path:
    """Where in `work` that lies which depends on what towers are shown: `image_size` and `closeups` of EncoderConfig."""
    return work / (f"{sight['image_size']}px" + f"-closeups-{sight['closeups']}" * bool(sight["closeups"]))


def folder_of(catalog: Catalog, work: Path) -> Path:
    """The catalog's folder, drawn or multiplied at first use beside `work`: pictures are the same for all sizes that towers see.

    Raises:
        SourceError: the shop's data are not there.
    """
    if catalog.shop != "demo" and not (SHARED / "data" / catalog.shop / "catalog.parquet").is_file():
        raise SourceError(f"{SHARED / 'data' / catalog.shop} is not there", "leave its catalogs out: --catalogs demo")
    made = work.parent / "catalogs" / catalog.name
    if (made / "catalog.parquet").is_file():
        return made
    if catalog.shop == "demo":
        draw_catalog(made, items=2000, seed=0)
    elif catalog.multiplied:
        made.mkdir(parents=True, exist_ok=True)
        source, partial = SHARED / "data" / catalog.shop, made / "partial.parquet"
        subprocess.run([sys.executable, SHARED / "tools" / "augment.py", source, partial, str(catalog.multiplied), "90000", "224", "", str(SCENES)],
                       check=True)  # fmt: skip
        partial.rename(made / "catalog.parquet")
    else:
        return SHARED / "data" / catalog.shop
    return made


def prepare(catalogs: tuple[Catalog, ...], sight: dict[str, int], work: Path, progress: Progress) -> None:
    """Run the default towers over all pictures that have no features yet: some 10 a second on two cores with close-ups.

    `sight`: `image_size` and `closeups` of EncoderConfig.
    """
    missing = [(c, side) for c in catalogs for side in ("train", "test") if not features_file(c, side, work).is_file()]
    if not missing:
        return
    torch.manual_seed(0)
    encoder, start = TGQFormer(EncoderConfig(**sight)), work / "towers"
    encoder.save_pretrained(start)
    (work / "features").mkdir(parents=True, exist_ok=True)
    with open_session(load_settings(["local"], []).settings) as spark:
        for catalog, side in missing:
            source = Source.of_catalog(f"{folder_of(catalog, work)}={catalog.profile}", work / "warehouses")
            source = replace(source, name=catalog.name)
            read_source(spark, source, encoder, start, "study", None, 0, progress, side)[0].save(features_file(catalog, side, work))


def features(catalog: Catalog, side: str, work: Path) -> TrainingSet:
    """What `prepare` made of one side."""
    return TrainingSet.load(features_file(catalog, side, work))


def labels(catalog: Catalog, side: str, work: Path) -> tuple[np.ndarray, np.ndarray]:
    """Ids and groups of one side, without its features."""
    with np.load(features_file(catalog, side, work), allow_pickle=False) as arrays:
        return arrays["item"], arrays["group"]


def truth(catalog: Catalog, work: Path) -> pd.DataFrame:
    """The nuisances and the item's box by item_id, as far as the catalog knows them."""
    frame = pd.read_parquet(folder_of(catalog, work) / "catalog.parquet")
    known = [name for name in (*SLICES, "box") if name in frame.columns]
    return frame.drop_duplicates("item_id").set_index("item_id")[known]


def features_file(catalog: Catalog, side: str, work: Path) -> Path:
    """Where the features of one side lie."""
    return work / "features" / f"{catalog.name}-{side}.npz"
