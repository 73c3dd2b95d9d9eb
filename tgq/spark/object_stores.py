"""What Spark needs for object stores: which kinds the settings name, and options of Hadoop's client of s3a://."""

from __future__ import annotations

import os

from tgq.settings.sections import Settings
from tgq.storage.stores import ENDPOINT, is_uri, scheme_of

# Where a connection breaks in the middle of an object, Hadoop's own stream asks again. Hadoop 3.5's default, a library of Amazon's, and Parquet's
# reads of several ranges at once fail.
PATIENT = {"spark.hadoop.fs.s3a.input.stream.type": "classic", "spark.hadoop.parquet.hadoop.vectored.io.enabled": "false"}
REGIONS = ("AWS_REGION", "AWS_DEFAULT_REGION")  # as Amazon's other clients read them


def schemes(settings: Settings) -> list[str]:
    """The schemes of the URIs that Spark reads and writes: those of the warehouse and the catalog, sorted."""
    places = (settings.warehouse.path, settings.catalog.path)
    return sorted({scheme_of(place) for place in places if place and is_uri(place)})


def s3a_conf() -> dict[str, str]:
    """Options of Hadoop's client. Spark itself takes credentials and address from there.

    A store with an address of its own has its buckets in the path, as few have names for them in the DNS.
    """
    conf = dict(PATIENT)
    if os.environ.get(ENDPOINT):
        conf["spark.hadoop.fs.s3a.path.style.access"] = "true"
    if region := next(filter(None, map(os.environ.get, REGIONS)), None):
        conf["spark.hadoop.fs.s3a.endpoint.region"] = region
    return conf
