"""The promoted encoders of a warehouse, and the pointer to the champion.

    models/CHAMPION          all promotions, oldest first; the champion is the last one that was not rolled back
    models/<model_version>/  config.json, model.safetensors, training.json, and towers from inside the encoder's folder
    models/<model_version>-<query_version>/  the same of an encoder with a query tower, and the tower's files in query_tower/

An item model may be promoted with one query tower after another. Each has a folder of its own, so a rollback finds the earlier one.
The pointer is written last and holds the sha256 of every file. Loading a model therefore gives the encoder that was promoted, or
an error. Only one process may promote or roll back at a time: the caller holds the warehouse's lock. Readers need no lock.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tgq.errors import ModelError, WarehouseError
from tgq.query_tower import config as query_tower
from tgq.storage.files import Files, sha256

CHAMPION, DEFAULT = "champion", "default"  # values of encoder.path besides a folder
MODELS = "models"
POINTER = f"{MODELS}/CHAMPION"
FORMAT = 1
OWN = ("config.json", "model.safetensors", "training.json")
QUERY_OWN = (query_tower.CONFIG, query_tower.WEIGHTS, query_tower.RECORD)
TOWERS = ("vision", "text", "llm")  # keys of config.json that refer to a tower
BUNDLED_FOLDER = Path(__file__).parent.parent / "encoder" / "pretrained" / "default"
_VERSION = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class Promotion:
    """One promotion. Times are ISO 8601, UTC."""

    model_version: str
    promoted_at: str
    previous: str  # name of the champion until then
    forced: bool  # although the candidate was worse or could not be compared
    files: Mapping[str, str]  # path in the model's folder: sha256
    figures: Mapping[str, Any]  # overall results of the comparison
    rolled_back_at: str | None = None
    query_version: str = ""  # of its query tower; empty: it has none

    @property
    def name(self) -> str:
        """The name of its folder; see `encoder_name`."""
        return encoder_name(self.model_version, self.query_version)


@dataclass(frozen=True)
class History:
    """All promotions of a warehouse, oldest first. If none is in force, the champion is the bundled encoder."""

    promotions: tuple[Promotion, ...] = ()

    @property
    def in_force(self) -> tuple[Promotion, ...]:
        """The promotions that were not rolled back. The `previous` of each is the name of the one before it."""
        return tuple(promotion for promotion in self.promotions if promotion.rolled_back_at is None)

    @property
    def champion(self) -> Promotion | None:
        return self.in_force[-1] if self.in_force else None

    def named(self, name: str) -> Promotion | None:
        """The last promotion with this name, rolled back or not: that of the files in its folder."""
        return next((promotion for promotion in reversed(self.promotions) if promotion.name == name), None)

    def of(self, model_version: str) -> Promotion | None:
        """The promotion of an item model, with its query tower, that was champion last: one in force, or else the last to be rolled back."""
        made = [promotion for promotion in self.promotions if promotion.model_version == model_version]
        in_force = [promotion for promotion in made if promotion.rolled_back_at is None]
        return in_force[-1] if in_force else max(reversed(made), key=lambda promotion: promotion.rolled_back_at or "", default=None)

    def bundled_again(self, model_version: str) -> bool:
        """Whether a model is the bundled encoder's, and was promoted, as with a query tower, and every such promotion was rolled back."""
        made = [promotion for promotion in self.promotions if promotion.model_version == model_version]
        first = made and model_of(self.promotions[0].previous) == model_version
        return bool(first) and all(promotion.rolled_back_at for promotion in made)

    def promoted(self, promotion: Promotion) -> History:
        return History((*self.promotions, promotion))

    def rolled_back(self, to: str | None, at: str) -> History:
        """The history with the last promotion rolled back, or all promotions after `to`: a name, a model version or `default`.

        A model version that was champion with several query towers means the last of them.

        Raises:
            WarehouseError: there is no promotion to roll back, or `to` was not champion before.
        """
        if not self.promotions:
            raise WarehouseError("no encoder was promoted here, so there is none to roll back", "the bundled encoder is the champion")
        in_force, bundled = self.in_force, self.promotions[0].previous
        names = [bundled, *(promotion.name for promotion in in_force)]
        now, before = names[-1], names[:-1]
        if to is not None and (_means(to, now) or (to == DEFAULT and not in_force)):
            return self
        if not in_force:
            raise WarehouseError("every promotion was rolled back", "the bundled encoder is the champion; promote another with `tgq promote`")
        if to is None:
            kept = len(in_force) - 1
        elif to == DEFAULT or _means(to, bundled):
            kept = 0
        elif found := [i for i, name in enumerate(before) if _means(to, name)]:
            kept = found[-1]
        else:
            raise WarehouseError(f"'{to}' was not champion before {now}", f"choose one of: {', '.join(dict.fromkeys(before))}")
        undone = {id(promotion) for promotion in in_force[kept:]}  # by identity: two promotions of one model within a second are equal
        return History(tuple(replace(p, rolled_back_at=at) if id(p) in undone else p for p in self.promotions))

    def reference(self, root: str) -> str:
        """The champion as a value of `encoder.path`: its folder or URI, or `default`."""
        return model_path(root, self.champion.name) if self.champion else DEFAULT

    def to_json(self) -> str:
        champion = self.champion
        now = {"model_version": champion and champion.model_version, "query_version": champion and champion.query_version}
        return json.dumps({"format": FORMAT, **now, "history": [asdict(promotion) for promotion in self.promotions]}, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> History:
        """The inverse of `to_json`.

        Raises:
            WarehouseError: the text is broken or of another format.
        """
        try:
            fields = json.loads(text)
            if fields["format"] != FORMAT:
                raise ValueError("its format is of another version of tgq")
            promotions = tuple(Promotion(**promotion) for promotion in fields["history"])
            if not all(_VERSION.fullmatch(promotion.model_version) for promotion in promotions):
                raise ValueError("it names no model version")
            if not all(isinstance(digest, str) for promotion in promotions for digest in (promotion.previous, *promotion.files.values())):
                raise ValueError("it names no sha256 of a file")
            if not all(_VERSION.fullmatch(promotion.query_version) for promotion in promotions if promotion.query_version):
                raise ValueError("it names no version of a query tower")
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise WarehouseError(f"broken {POINTER}: {error}", "restore it; without it the bundled encoder is the champion") from None
        return cls(promotions)


def encoder_name(model_version: str, query_version: str | None) -> str:
    """`<model_version>`, or with a query tower `<model_version>-<query_version>`."""
    return f"{model_version}-{query_version}" if query_version else model_version


def model_of(name: str) -> str:
    """The model version in the name of an encoder."""
    return name.partition("-")[0]


def _means(said: str, name: str) -> bool:
    return said in (name, model_of(name))


def read_history(root: str) -> History:
    """The promotions of a warehouse; empty if nothing was promoted.

    Raises:
        WarehouseError: the pointer is broken or cannot be read.
    """
    try:
        return History.from_json(Files(root).read(POINTER))
    except FileNotFoundError:
        return History()
    except (OSError, ImportError) as error:
        raise WarehouseError(f"{root}/{POINTER} cannot be read ({error})", "correct its permissions or the access to the object store") from None


def write_history(root: str, history: History) -> None:
    """Replace the pointer. Nothing else changes the champion."""
    Files(root).write(POINTER, history.to_json().encode())


def model_path(root: str, name: str) -> str:
    """The folder or URI of a promoted encoder by its name; `local_folder` fetches a URI."""
    return f"{root}/{MODELS}/{name}"


def store_encoder(root: str, folder: str, name: str) -> dict[str, str]:
    """Copy an encoder's folder into the warehouse, under its name. Returns the sha256 of each file. Repeating it changes nothing."""
    files, hashes = Files(root), {}
    for path, data in encoder_files(Path(folder)):
        files.write(f"{MODELS}/{name}/{path}", data)
        hashes[path] = sha256(data)
    return hashes


def encoder_files(folder: Path) -> Iterator[tuple[str, bytes]]:
    """The files of an encoder: path in the folder, and bytes.

    Towers inside the folder are included, the query tower and its checkpoint among them. A tower outside it is not copied, because it
    may be large; its relative path in a config.json becomes absolute. Names of bundled towers and of the Hugging Face hub do not change.

    Raises:
        ModelError: a file is a link to one outside of the folder.
    """
    folder = folder.resolve()
    need_own_files(folder)
    inside: dict[Path, None] = {}  # folders of towers
    own = [(".", OWN, TOWERS)] + ([(query_tower.FOLDER, QUERY_OWN, ("text",))] if query_tower.tower_folder(folder) else [])
    for part, names, towers in own:
        config = _copied(folder, folder / part, towers, inside)
        yield (Path(part) / "config.json").as_posix(), (json.dumps(config, indent=1) + "\n").encode()
        for name in names:
            if name != "config.json" and (folder / part / name).is_file():
                yield (Path(part) / name).as_posix(), (folder / part / name).read_bytes()
    for file in sorted({file for tower in inside for file in tower.rglob("*") if file.is_file()}):
        yield file.relative_to(folder).as_posix(), file.read_bytes()


def need_own_files(folder: Path) -> None:
    """Check that no file of an encoder's folder is a link to one outside of it, whose content a copy would carry away.

    Raises:
        ModelError: one is.
    """
    for file in sorted(folder.rglob("*")):
        if file.is_symlink() and not file.is_dir() and not file.resolve().is_relative_to(folder.resolve()):
            raise ModelError(f"{file} is a link to {file.resolve()}, outside of the encoder's folder", "put the file itself there, or remove the link")


def _copied(folder: Path, place: Path, towers: Iterable[str], inside: dict[Path, None]) -> dict[str, Any]:
    """The configuration in `place` for a copy of the encoder in `folder`. Its towers that are copied along are added to `inside`."""
    from tgq.encoder.towers.hub import BUNDLED

    config: dict[str, Any] = json.loads((place / "config.json").read_text())
    for part in towers:
        reference = config.get(part)
        if not reference or reference in BUNDLED or Path(reference).is_absolute() or not (place / reference).is_dir():
            continue
        tower = (place / reference).resolve()
        if tower.is_relative_to(folder):
            inside[tower] = None
        else:
            config[part] = str(tower)
    return config


def local_folder(path: str) -> str:
    """A local folder with the encoder of `path`: the folder itself, or for a URI a copy in the local cache.

    The hashes of a promoted model's files are compared with those in the pointer, also in the cache.

    Raises:
        ModelError: a file is missing, or was altered or added after its promotion, or there is no such model.
    """
    from tgq.storage.paths import cache_folder

    root, _, name = path.rpartition("/")[0].rpartition("/")
    version, remote = path.rpartition("/")[2], "://" in path
    known = read_history(root or "/").named(version) if name == MODELS else None
    if known is None:
        if remote:
            raise ModelError(f"no encoder {path} was promoted", "name a local folder, or promote it with `tgq promote`")
        return path
    source = Files(path)
    if not remote:
        for file, digest in known.files.items():
            _checked(source, file, digest)
        present = (file.relative_to(path) for file in Path(path).rglob("*") if not file.is_dir())
        if added := sorted(file.as_posix() for file in present if file.as_posix() not in known.files and not file.name.startswith(".")):
            raise ModelError(f"{added[0]} was added to the encoder {path} after it was promoted", "remove it, or promote the encoder again")
        return path
    # the folder's name depends on all hashes, so files of two promotions never mix
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
