"""The folder of a multiplied catalog: whether it may be written to, and the files that describe it."""

from __future__ import annotations

import json

from tgq.errors import UsageError
from tgq.multiply.row import SLICES
from tgq.settings.sections import EvaluateSettings, MetadataSettings
from tgq.storage.files import Files
from tgq.storage.paths import absolute

TABLE, PROFILE, LEFT_OUT, SOURCE, STAGING = "catalog.parquet", "profile.yaml", "left_out.jsonl", "SOURCE.md", "_staging"
TITLE = "# A multiplied catalog\n"


class OutFolder:
    """A local folder or a URI of an object store. `SOURCE.md` says that tgq wrote it; while it holds the title alone the catalog is not finished."""

    def __init__(self, path: str):
        self.root = absolute(path)
        self.files = Files(self.root)

    def check(self, source: str, force: bool) -> None:
        """Check that a multiplied catalog may be written here. An unfinished one is replaced without `force`.

        Args:
            source: path of the catalog to be read.

        Raises:
            UsageError: the folder is that of the source, holds other files, or a finished catalog and `force` is false.
            OSError: no folder can be there, because a part of the path is a file.
        """
        system, folder = self.files.fs, self.files.root
        if f"{absolute(source)}/".startswith(f"{self.root}/"):
            raise UsageError(f"{self.root} is where the catalog {source} is read from", "name another folder")
        if system.isfile(folder):
            raise UsageError(f"{self.root} is a file", "name a folder")
        said = self.files.read(SOURCE).decode(errors="replace") if self.files.size(SOURCE) is not None else ""
        if not system.exists(folder):
            return
        if not system.ls(folder, detail=False):
            return
        if not said.startswith(TITLE):
            raise UsageError(f"{self.root} holds files that were not written by this command", "name another folder, or remove them")
        if said != TITLE and not force:
            raise UsageError(f"{self.root} already holds a multiplied catalog", "name another folder, or give --force")

    def begin(self) -> None:
        """Make the folder this command's own; a finished catalog in it stays for now.

        Raises:
            WarehouseError: it is not writable.
        """
        if self.files.size(SOURCE) is None:
            self.files.write(SOURCE, TITLE.encode())
        self.files.remove(STAGING)

    def clear(self) -> None:
        """Remove the earlier catalog, when nothing but the drawing of the new one is left to do."""
        self.files.write(SOURCE, TITLE.encode())
        for name in (TABLE, PROFILE, LEFT_OUT):
            self.files.remove(name)

    def finish(self, profile: str, source: str) -> None:
        """Write the profile and, last, what the catalog is."""
        self.files.write(PROFILE, profile.encode())
        self.files.write(SOURCE, f"{TITLE}\n{source}".encode())

    def staging(self, name: str) -> str:
        """A place for Spark in the folder that holds what is between the jobs."""
        return self.place(f"{STAGING}/{name}")

    def place(self, name: str) -> str:
        """A file or folder of the catalog as a URI for Spark, to which a bare path would mean its default file system."""
        return f"{self.root if '://' in self.root else f'file:{self.root}'}/{name}"


def profile(metadata: MetadataSettings) -> str:
    """A profile (YAML) with which a night reads the multiplied catalog. It sets every key that a profile of the source may set."""
    newline, slices = "\n", [*EvaluateSettings().slices, *SLICES]
    told = (f"  {name}: {json.dumps(value, ensure_ascii=False)}" for name, value in metadata.model_dump(mode="json").items())
    return f"""# Written by tgq multiply; OUT is the folder of this file: tgq nightly --conf local --conf OUT/profile.yaml --catalog OUT
# Relevant to each other: rows of one group; rows of one item too, unless the source names variants, whose views are not judged.
catalog:
  format: parquet
  table: {TABLE}
  columns:
    item_id: item_id
    title: title
    brand: brand
    category: category
    attributes: attributes
    image_uri: null              # the pictures are in the table
    image_bytes: image_bytes
    additional_images: null
    group_id: group_id
    variant_id: variant_id
  category_separator: ">"
  category_list_separator: null
  inherit: []
  slice_columns: [{", ".join(SLICES)}]
metadata:                        # what the encoder may read: as for the source
{newline.join(told)}
pairs:
  source: group
evaluate:
  slices: [{", ".join(slices)}]
"""
