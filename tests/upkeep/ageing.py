"""A warehouse made older, so that weeks of nights pass in minutes."""

import json
import os
import re
from datetime import datetime, timedelta
from pathlib import Path

from tgq.storage.files import sha256


def age(spark, root, hours=24):
    """Make the tables' files and commits, and the generations, older, as if that many hours had passed."""
    for file in (path for path in Path(root).rglob("*") if path.is_file()):
        if file.parent.name == "_delta_log" and file.suffix == ".json":
            file.write_text(re.sub(r'"(timestamp|deletionTimestamp|modificationTime)":(\d+)', lambda m: f'"{m[1]}":{int(m[2]) - 3_600_000 * hours}',
                                   file.read_text()))  # fmt: skip
        elif file.suffix == ".crc":
            file.unlink()  # checksums of what was just changed
            continue
        elif file.name == "manifest.json" and "created_at" in (made := json.loads(file.read_text())):
            made["created_at"] = (datetime.fromisoformat(made["created_at"]) - timedelta(hours=hours)).isoformat(timespec="seconds")
            file.write_text(json.dumps(made))
            current = Path(root, "index", "CURRENT")
            if json.loads(current.read_text())["generation"] == made["generation"]:
                current.write_text(json.dumps({"generation": made["generation"], "sha256": sha256(file.read_bytes())}))
        at = file.stat().st_mtime - 3600 * hours
        os.utime(file, (at, at))
    spark._jvm.org.apache.spark.sql.delta.DeltaLog.clearCache()
