"""A warehouse made older, so that weeks of nights pass in minutes."""

import json
import os
import re
from datetime import datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tgq.storage.files import sha256


def age(spark, root, hours=24):
    """Make the tables' files and commits, and the generations, older, as if that many hours had passed."""
    for file in [path for path in Path(root).rglob("*") if path.is_file()]:
        at = file.stat().st_mtime - 3600 * hours  # before the file is written again
        if file.parent.name == "_delta_log" and file.suffix == ".json":
            file.write_text(re.sub(r'"(timestamp|deletionTimestamp|modificationTime)":(\d+)', lambda m: f'"{m[1]}":{int(m[2]) - 3_600_000 * hours}',
                                   file.read_text()))  # fmt: skip
        elif file.parent.name == "_delta_log" and ".checkpoint" in file.name and file.suffix == ".parquet":
            age_checkpoint(file, 3_600_000 * hours)
        elif file.suffix == ".crc" and file.name.startswith("."):
            file.unlink()  # Hadoop's checksum of a file that was just changed
            continue
        elif file.name == "manifest.json" and "created_at" in (made := json.loads(file.read_text())):
            made["created_at"] = (datetime.fromisoformat(made["created_at"]) - timedelta(hours=hours)).isoformat(timespec="seconds")
            file.write_text(json.dumps(made))
            current = Path(root, "index", "CURRENT")
            if json.loads(current.read_text())["generation"] == made["generation"]:
                current.write_text(json.dumps({"generation": made["generation"], "sha256": sha256(file.read_bytes())}))
        os.utime(file, (at, at))
    spark._jvm.org.apache.spark.sql.delta.DeltaLog.clearCache()


def age_checkpoint(file, milliseconds):
    """Make the times in a checkpoint older: VACUUM reads there when a file was removed."""
    table = pq.read_table(file)
    for number, field in enumerate(table.schema):
        if field.name not in ("add", "remove"):
            continue
        whole = table.column(number).combine_chunks()
        parts = [pc.struct_field(whole, inner.name) for inner in field.type]
        older = [pc.subtract(part, milliseconds) if inner.name in ("modificationTime", "deletionTimestamp") else part
                 for part, inner in zip(parts, field.type, strict=True)]  # fmt: skip
        kept = [inner.with_nullable(True) for inner in field.type]  # delta-rs declares what is null where there is no such action as required
        table = table.set_column(number, field.with_type(pa.struct(kept)), pa.StructArray.from_arrays(older, fields=kept, mask=pc.is_null(whole)))
    pq.write_table(table, file)
