"""Fails unless the wheel holds exactly the package: every file of tgq/, the YAML files of conf/ and the SQL files of sql/."""

import sys
import zipfile
from pathlib import Path

checkout = Path(__file__).parents[1]
package = {path for path in (checkout / "tgq").rglob("*") if path.is_file() and "__pycache__" not in path.parts}
data = {*(checkout / "conf").rglob("*.yaml"), *(checkout / "sql").rglob("*.sql")}
expected = {path.relative_to(checkout).as_posix() for path in package} | {f"tgq/{path.relative_to(checkout).as_posix()}" for path in data}

with zipfile.ZipFile(sys.argv[1]) as wheel:
    found = {name for name in wheel.namelist() if ".dist-info/" not in name}
if found != expected:
    sys.exit(f"{sys.argv[1]}: missing {sorted(expected - found)}, not of the package {sorted(found - expected)}: correct package_data in setup.py")
print(f"the wheel holds the package's {len(found)} files and nothing else")
