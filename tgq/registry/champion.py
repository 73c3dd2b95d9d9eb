"""The warehouse's encoders: a folder for each that was promoted, and one pointer to the champion.

    models/CHAMPION          every promotion, oldest first; the champion is the last one that stands
    models/<model_version>/  config.json, model.safetensors, training.json, and towers that lay inside the encoder's folder

The pointer is the last to move and knows the sha256 of every file, so whoever loads a model from here, on whatever machine,
has the one that was judged, or an error. One process at a time promotes or rolls back (the caller holds the warehouse's lock);
readers need no lock.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tgq.errors import ModelError, WarehouseError
from tgq.storage.files import Files, sha256

CHAMPION, DEFAULT = "champion", "default"  # what encoder.path may say beside a folder
MODELS = "models"
POINTER = f"{MODELS}/CHAMPION"
FORMAT = 1
OWN = ("config.json", "model.safetensors", "training.json")
TOWERS = ("vision", "text", "llm")  # keys of config.json that refer to a tower
BUNDLED_FOLDER = Path(__file__).parent.parent / "encoder" / "pretrained" / "default"
_VERSION = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class Promotion:
    """One encoder's rise. Times are ISO 8601, UTC."""

    model_version: str
    promoted_at: str
    previous: str  # the champion until then
    forced: bool  # although it was found worse, or could not be compared
    files: Mapping[str, str]  # path in its folder: sha256
    figures: Mapping[str, Any]  # what it showed, overall
    rolled_back_at: str | None = None


@dataclass(frozen=True)
class History:
    """All promotions of a warehouse, oldest first. None that stands: the champion is the bundled encoder."""

    promotions: tuple[Promotion, ...] = ()

    @property
    def standing(self) -> tuple[Promotion, ...]:
        """Those that were not rolled back; each has the one before it as `previous`."""
        return tuple(made for made in self.promotions if made.rolled_back_at is None)

    @property
    def champion(self) -> Promotion | None:
        return self.standing[-1] if self.standing else None

    def of(self, model_version: str) -> Promotion | None:
        """The last promotion of a model, whether it stands or not."""
        return next((made for made in reversed(self.promotions) if made.model_version == model_version), None)

    def promoted(self, promotion: Promotion) -> History:
        return History((*self.promotions, promotion))

    def rolled_back(self, to: str | None, at: str) -> History:
        """The history with the champion taken back, or with all that came after `to`, a model version or `default`.

        Raises:
            WarehouseError: nothing can be taken back, or `to` was not champion before.
        """
        if not self.promotions:
            raise WarehouseError("no encoder was promoted here, so there is none to roll back", "the bundled encoder is the champion")
        standing, bundled = self.standing, (DEFAULT, self.promotions[0].previous)
        now = (standing[-1].model_version,) if standing else bundled
        if to in now:
            return self
        if not standing:
            raise WarehouseError("every promotion was rolled back", "the bundled encoder is the champion; promote another with `tgq promote`")
        before = [made.previous for made in standing]
        if to is None:
            kept = len(standing) - 1
        elif to in bundled:
            kept = 0
        elif to in before:
            kept = len(before) - 1 - before[::-1].index(to)
        else:
            raise WarehouseError(f"'{to}' was not champion before {now[0]}", f"choose one of: {', '.join(dict.fromkeys(before))}")
        taken = {id(made) for made in standing[kept:]}  # by identity: the same model may have risen twice within a second
        return History(tuple(replace(made, rolled_back_at=at) if id(made) in taken else made for made in self.promotions))

    def reference(self, root: str) -> str:
        """The champion as `encoder.path` names it: its folder or URI, or `default`."""
        return place_of(root, self.champion.model_version) if self.champion else DEFAULT

    def to_json(self) -> str:
        champion = self.champion and self.champion.model_version
        return json.dumps({"format": FORMAT, "model_version": champion, "history": [asdict(made) for made in self.promotions]}, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> History:
        """Raises WarehouseError for text that is no history of this version."""
        try:
            fields = json.loads(text)
            if fields["format"] != FORMAT:
                raise ValueError("its format is of another version of tgq")
            promotions = tuple(Promotion(**made) for made in fields["history"])
            if not all(_VERSION.fullmatch(made.model_version) for made in promotions):
                raise ValueError("it names no model version")
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise WarehouseError(f"broken {POINTER}: {error}", "restore it; without it the bundled encoder is the champion") from None
        return cls(promotions)


def read_history(root: str) -> History:
    """The promotions of a warehouse; none where nothing was promoted.

    Raises:
        WarehouseError: the pointer is broken or cannot be read.
    """
    try:
        return History.from_json(Files(root).read(POINTER))
    except FileNotFoundError:
        return History()
    except (OSError, ImportError) as error:
        raise WarehouseError(f"{root}/{POINTER} cannot be read ({error})", "mend its permissions, or the access to its store") from None


def write_history(root: str, history: History) -> None:
    """Replace the pointer: the one act that changes the champion."""
    Files(root).write(POINTER, history.to_json().encode())


def place_of(root: str, model_version: str) -> str:
    """Where a model's files are: a folder, or a URI (`local_folder` fetches it)."""
    return f"{root}/{MODELS}/{model_version}"


def store_encoder(root: str, folder: str, model_version: str) -> dict[str, str]:
    """Copy an encoder's folder into the warehouse; the sha256 of each file. Done again, nothing changes."""
    files, hashes = Files(root), {}
    for name, data in _contents(Path(folder)):
        files.write(f"{MODELS}/{model_version}/{name}", data)
        hashes[name] = sha256(data)
    return hashes


def _contents(folder: Path) -> Iterator[tuple[str, bytes]]:
    """The files of an encoder by their path in its folder.

    A tower inside the folder is a part of it. One beside it is not copied, it may be large; as the copy lies elsewhere, or in a
    cache, its relative path becomes an absolute one. Bundled towers and hub names stand as they are.
    """
    from tgq.encoder.towers.hub import BUNDLED

    folder = folder.resolve()
    config = json.loads((folder / "config.json").read_text())
    for part in TOWERS:
        reference = config.get(part)
        if not reference or reference in BUNDLED or Path(reference).is_absolute() or not (folder / reference).is_dir():
            continue
        tower = (folder / reference).resolve()
        if not tower.is_relative_to(folder):
            config[part] = str(tower)
            continue
        for file in sorted(tower.rglob("*")):
            if file.is_file():
                yield file.relative_to(folder).as_posix(), file.read_bytes()
    yield "config.json", (json.dumps(config, indent=1) + "\n").encode()
    for name in OWN[1:]:
        if (folder / name).is_file():
            yield name, (folder / name).read_bytes()


def local_folder(place: str) -> str:
    """A folder of this machine with the encoder of `place`: that folder itself, or for a URI a copy in the local cache.

    Files of a warehouse's model are compared with what its pointer knows of them, also in the cache.

    Raises:
        ModelError: a file is missing or was altered after it was promoted, or there is no such model.
    """
    from tgq.storage.paths import cache_folder

    root, _, name = place.rpartition("/")[0].rpartition("/")
    version, remote = place.rpartition("/")[2], "://" in place
    known = read_history(root or "/").of(version) if name == MODELS else None
    if known is None:
        if remote:
            raise ModelError(f"no encoder {place} was promoted", "name a local folder, or promote it with `tgq promote`")
        return place
    source = Files(place)
    if not remote:
        for file, digest in known.files.items():
            _checked(source, file, digest)
        return place
    # another set of files is another folder, so that no process ever sees two promotions mixed
    folder = cache_folder() / MODELS / f"{version}-{sha256(json.dumps(dict(known.files), sort_keys=True).encode())[:12]}"
    cache = Files(folder)
    for file, digest in known.files.items():
        if cache.size(file) is None or sha256(cache.read(file)) != digest:
            cache.write(file, _checked(source, file, digest))
    return str(folder)


def _checked(files: Files, name: str, digest: str) -> bytes:
    try:
        data = files.read(name)
    except FileNotFoundError:
        raise ModelError(f"{name} of the promoted encoder {files.root} is missing", "promote the encoder again, or `tgq rollback-model`") from None
    if sha256(data) != digest:
        raise ModelError(
            f"{name} of the promoted encoder {files.root} was altered after it was promoted", "promote the encoder again, or `tgq rollback-model`"
        )
    return data
