"""Settings from YAML profiles merged in order, then environment variables, then `--set`; validated once into frozen, typed objects.

Merging is OmegaConf's, validation is pydantic's. What this module adds is provenance: every value knows the file, variable
or flag that it came from, so that an error can name it and `tgq config show` can print it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import TypeAdapter, ValidationError
from yaml import YAMLError

from tgq.errors import ConfigError
from tgq.settings.sections import Settings

ENV_PREFIX = "TGQ__"
SECRET = re.compile(r"secret|password|passwd|token(?!s)|credential|access[._-]?key|account[._-]?key|private[._-]?key", re.IGNORECASE)
PASSWORD = re.compile(r"(://[^/@:\s]*:)[^/@\s]+@")
STARS = "***"


@dataclass(frozen=True)
class Loaded:
    """Settings with the origin of each value ("built-in default" where no layer set it)."""

    settings: Settings
    origins: Mapping[str, str]

    def origin(self, key: str) -> str:
        """The layer that set `key` last, also where it set a whole group above it or a part below."""
        parts = key.split(".")
        above = [".".join(parts[:n]) for n in range(len(parts), 0, -1)]
        below = [k for k in self.origins if k.startswith(key + ".")]
        return next((self.origins[c] for c in (*above, *below) if c in self.origins), "built-in default")


def data_folder(name: str) -> Path:
    """The folder `conf` or `sql`: at the top of a checkout, inside the package when installed from a wheel."""
    package = Path(__file__).parents[1]
    beside = package.parent / name
    return beside if (package.parent / "setup.py").is_file() and beside.is_dir() else package / name


def load_settings(
    profiles: Sequence[str | Path] = (),
    overrides: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
) -> Loaded:
    """Merge `conf/base.yaml`, the profiles in order, `TGQ__section__key=value` variables and `key.path=value` overrides.

    Args:
        profiles: names under `conf/` (`local`, `cluster`, `catalogs/luma`) or paths of YAML files.
        overrides: `--set` strings; values are YAML, so `[a, b]`, `null` and `3` have their types.
        environ: environment to read; the process's own by default.

    Raises:
        ConfigError: unknown key, wrong type, impossible combination, unreadable file; names key and origin.
    """
    environ = os.environ if environ is None else environ
    merged = OmegaConf.create({})
    origins: dict[str, str] = {}
    for origin, layer in _layers(profiles, overrides, environ):
        for key in _leaves(OmegaConf.to_container(layer)):
            origins[key] = origin
        try:
            merged = cast(DictConfig, OmegaConf.merge(merged, layer))
        except OmegaConfBaseException as e:
            raise ConfigError(f"{origin}: {str(e).splitlines()[0]}", "give this key the same shape as in conf/base.yaml") from e
    try:
        values = OmegaConf.to_container(merged, resolve=True)
        settings = Settings.model_validate(values)
    except OmegaConfBaseException as e:
        raise ConfigError(f"configuration: {str(e).splitlines()[0]}", "check the ${...} reference") from e
    except ValidationError as e:
        raise _explain(e, Loaded(Settings.model_construct(), origins)) from None
    return Loaded(settings, origins)


def _layers(
    profiles: Iterable[str | Path], overrides: Iterable[str], environ: Mapping[str, str]
) -> Iterable[tuple[str, DictConfig]]:
    conf = data_folder("conf")
    yield "conf/base.yaml", _read(conf / "base.yaml", "conf/base.yaml")
    for profile in profiles:
        path = Path(profile)
        known = conf / f"{profile}.yaml"
        if path.suffix in (".yaml", ".yml"):
            yield str(profile), _read(path, str(profile))
        elif known.is_file():
            yield f"conf/{profile}.yaml", _read(known, f"conf/{profile}.yaml")
        else:
            names = sorted(p.relative_to(conf).with_suffix("").as_posix() for p in conf.rglob("*.yaml"))
            raise ConfigError(f"profile '{profile}' is neither a YAML file nor one of {names}", "name one of these, or a path that ends in .yaml")
    for name in sorted(environ):
        if name.startswith(ENV_PREFIX):
            key = name[len(ENV_PREFIX) :].lower().replace("__", ".")
            yield f"${name}", _dotted(f"{key}={environ[name]}", f"${name}")
    for override in overrides:
        yield f"--set {override}", _dotted(override, f"--set {override}")


def _read(path: Path, shown: str) -> DictConfig:
    try:
        layer = OmegaConf.load(path)
    except FileNotFoundError:
        raise ConfigError(f"{shown}: no such file", "name a profile under conf/ or an existing YAML file") from None
    except (YAMLError, OmegaConfBaseException, OSError) as e:
        raise ConfigError(f"{shown}: {' '.join(str(e).split())[:300]}", "write valid YAML") from e
    if not isinstance(layer, DictConfig):
        raise ConfigError(f"{shown}: holds a {type(layer).__name__}, not sections", "write sections, as in conf/base.yaml")
    return layer


def _dotted(text: str, origin: str) -> DictConfig:
    key, equals, _ = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"{origin}: not of the form key.path=value", "write for example --set embed.task_items=64")
    try:
        return OmegaConf.from_dotlist([text])
    except (YAMLError, OmegaConfBaseException) as e:
        raise ConfigError(f"{origin}: {' '.join(str(e).split())[:200]}", "quote the value as YAML") from e


def _leaves(node: Any, prefix: str = "") -> Iterable[str]:
    if isinstance(node, dict) and node:
        for key, value in node.items():
            yield from _leaves(value, f"{prefix}.{key}" if prefix else str(key))
    elif prefix:
        yield prefix


def _explain(error: ValidationError, loaded: Loaded) -> ConfigError:
    """The first of pydantic's findings, with the key's path and where the value came from."""
    first = error.errors()[0]
    key = ".".join(str(p) for p in first["loc"])
    if first["type"] == "extra_forbidden":
        section: Any = Settings
        for part in first["loc"][:-1]:
            section = section.model_fields[part].annotation
        return ConfigError(f"{key}: unknown key (from {loaded.origin(key)})", f"known here are {sorted(section.model_fields)}")
    if first["type"] == "value_error":
        return ConfigError(str(first["ctx"]["error"]), "change one of the two settings")
    shown = repr(first["input"])[:80]
    return ConfigError(f"{key}: {first['msg']}, found {shown} (from {loaded.origin(key)})", "correct the value")


def dataclass_of(kind: type, overrides: Iterable[str], flag: str) -> Any:
    """A dataclass of plain fields with some of them set by 'key=value'.

    Raises:
        ConfigError: a key that it has not, or a value of another type; names the flag.
    """
    values: dict[str, str] = {}
    known = [field.name for field in fields(kind)]
    for text in overrides:
        key, mark, value = text.partition("=")
        if not mark or key not in known:
            raise ConfigError(f"{flag} {text}: no such key", f"write KEY=VALUE with one of {', '.join(known)}")
        values[key] = value
    try:
        return TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise ConfigError(f"{flag} {key}={values.get(key)}: {first['msg']}", "give a value of the field's type") from None


def flat(settings: Settings) -> dict[str, Any]:
    """Every setting by its dotted key, for printing and for MLflow parameters."""

    def walk(node: Any, prefix: str) -> Iterable[tuple[str, Any]]:
        if isinstance(node, dict) and node:
            for key, value in node.items():
                yield from walk(value, f"{prefix}.{key}" if prefix else key)
        else:
            yield prefix, node

    return dict(walk(settings.model_dump(mode="json"), ""))


def redacted(settings: Settings) -> dict[str, Any]:
    """`flat`, fit to be shown: values of keys that name a secret, and passwords in URIs, are stars."""
    return {key: STARS if value is not None and SECRET.search(key) else PASSWORD.sub(rf"\1{STARS}@", value) if isinstance(value, str) else value
            for key, value in flat(settings).items()}  # fmt: skip
