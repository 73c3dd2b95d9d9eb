"""The table `picture_hashes`: a row for each picture that the embed step has decoded, written once."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from tgq.run.night import Night

TABLE = "picture_hashes"
WANTED = "hash_wanted"  # column of the plan: the picture has no row yet


def with_wanted(night: Night, waiting: DataFrame) -> DataFrame:
    """Pending items with the column WANTED. Cost: a join with the table's hashes of pictures, about 60 bytes each."""
    have = night.warehouse.read(TABLE).select("image_hash", F.lit(False).alias(WANTED))
    return waiting.join(have, "image_hash", "left").withColumn(WANTED, F.col("image_hash").isNotNull() & F.coalesce(WANTED, F.lit(True)))


def commit_hashes(night: Night, good: DataFrame, transaction: tuple[str, int]) -> None:
    """Append the hashes of pictures that were decoded for the first time, before the embeddings of their items.

    A run that was killed in between embeds these items again, but its new plan does not want the hashes again. Items with one picture are in one
    slice, so no two commits of a plan have the same picture.

    Args:
        good: rows of embedded items, with `image_hash`, `perceptual_hash` (null where the picture was not hashed) and `run_id`.
        transaction: (application id, version) of the Delta commit, so that a repeated commit has no effect.
    """
    pictures = good.where("perceptual_hash IS NOT NULL AND image_hash IS NOT NULL").groupBy("image_hash")
    one = F.min(F.struct("perceptual_hash", "colour")).alias("one")  # of rows with the same picture
    rows = pictures.agg(one, F.first("run_id").alias("run_id")).select("image_hash", "one.*", "run_id")
    night.warehouse.append(rows.select(*night.warehouse.read(TABLE).columns), TABLE, transaction)
