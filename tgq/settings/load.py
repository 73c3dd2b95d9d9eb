"""Loading settings: YAML profiles merged in order, then environment variables, then `--set`; validated into frozen, typed objects.

OmegaConf merges and pydantic validates. This module adds the origin of each value (file, variable or flag), which errors name
and `tgq config show` prints.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, cast

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import TypeAdapter, ValidationError
from yaml import YAMLError

from tgq.errors import ConfigError
from tgq.messages import SECRET, STARS, masked
from tgq.settings.sections import Settings

ENV_PREFIX = "TGQ__"
MOST_VALUES = 100_000  # of a profile, counted with what its aliases stand for
FREE = "spark.conf."  # names below it are Spark's and its libraries', so a key there is a secret and not that of a table
KEY = re.compile(r"(?:^|[._-])keys?(?:$|[._-])|[a-z]Keys?$")


@dataclass(frozen=True)
class Loaded:
    """Settings with the origin of each value."""

    settings: Settings
    origins: Mapping[str, str]

    def origin(self, key: str) -> str:
        """The last layer that set `key`, a group that contains it, or a key inside it; "built-in default" if none did."""
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
        ConfigError: a key is unknown, a value has the wrong type, two values exclude each other, or a file cannot be read. The
            message names the key and its origin.
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
            raise ConfigError(f"{origin}: {_said(e)}", "write this key as in conf/base.yaml") from None
    try:
        values = OmegaConf.to_container(merged, resolve=True)
        settings = Settings.model_validate(values)
    except OmegaConfBaseException as e:
        raise ConfigError(f"configuration: {_said(e)}", "check the ${...} reference") from None
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
            raise ConfigError(f"there is no profile '{profile}'", f"choose one of {names}, or give a path that ends in .yaml")
    for name in sorted(environ):
        if name.startswith(ENV_PREFIX):
            key = name[len(ENV_PREFIX) :].lower().replace("__", ".")
            yield f"${name}", _dotted(f"{key}={environ[name]}", f"${name}")
    for override in overrides:
        shown = f"--set {_shown_override(override)}"
        yield shown, _dotted(override, shown)


def _read(path: Path, shown: str) -> DictConfig:
    try:
        with path.open(encoding="utf-8") as file:
            need_small(yaml.compose(file, getattr(yaml, "CSafeLoader", yaml.SafeLoader)), shown)
        layer = OmegaConf.load(path)
    except FileNotFoundError:
        raise ConfigError(f"{shown}: no such file", "give a profile under conf/ or an existing YAML file") from None
    except OmegaConfBaseException as e:
        raise ConfigError(f"{shown}: {_said(e)[:300]}", "write valid YAML") from None
    except (YAMLError, OSError, ValueError) as e:  # ValueError: bytes that are not UTF-8, numbers of thousands of digits
        raise ConfigError(f"{shown}: {' '.join(str(e).split())[:300]}", "write valid YAML") from None
    except RecursionError:
        raise ConfigError(f"{shown}: it is nested too deeply", "write sections, as in conf/base.yaml") from None
    if not isinstance(layer, DictConfig):
        raise ConfigError(f"{shown}: a {type(layer).__name__} at the top level", "write sections, as in conf/base.yaml")
    return layer


def need_small(node: yaml.Node | None, shown: str) -> None:
    """Check how many values a YAML document has once every alias stands for a copy of what it names: nine lines can name a thousand million.

    Raises:
        ConfigError: there are more than MOST_VALUES, or a value contains itself.
    """
    sizes: dict[int, int | None] = {}  # by node; None while it is counted

    def size(node: yaml.Node) -> int:
        if id(node) in sizes:
            if (known := sizes[id(node)]) is None:
                raise ConfigError(f"{shown}: a value contains itself by an alias", "write it out")
            return known
        sizes[id(node)] = None
        inner: list[Any] = node.value if isinstance(node, yaml.CollectionNode) else []
        found = 1 + sum(size(part) for entry in inner for part in (entry if isinstance(entry, tuple) else (entry,)))
        sizes[id(node)] = found
        return found

    if node is not None and (found := size(node)) > MOST_VALUES:
        raise ConfigError(f"{shown}: its aliases stand for {found:,} values, above the limit of {MOST_VALUES:,}", "write out what is meant")


def _said(error: OmegaConfBaseException) -> str:
    """The first line of an error of OmegaConf; without what it quotes if that belongs to a secret."""
    if is_secret(str(error.full_key or "")):
        return f"the value of {error.full_key} is no valid reference ({type(error).__name__})"
    return str(error).partition("\n")[0]


def _dotted(text: str, origin: str) -> DictConfig:
    key, equals, _ = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"{origin}: not of the form key.path=value", "write, for example, --set embed.task_items=64")
    try:
        return OmegaConf.from_dotlist([text])
    except (YAMLError, OmegaConfBaseException, ValueError, RecursionError) as e:
        why = "its value is not YAML" if STARS in _shown_override(text) else " ".join(str(e).split())[:200]  # YAML's message quotes the text
        raise ConfigError(f"{origin}: {why}", "quote the value as YAML") from None


def _shown_override(text: str) -> str:
    """`key=value` for messages: with stars in place of a value that is secret or holds something secret."""
    key, _, value = text.partition("=")
    within = SECRET.search(value) or (f"{key}.".startswith(FREE) and "key" in value.lower())  # a group may be given as one value
    return f"{key}={STARS}" if value and (is_secret(key) or within) else masked(text)


def _leaves(node: Any, prefix: str = "") -> Iterable[str]:
    if isinstance(node, dict) and node:
        for key, value in node.items():
            yield from _leaves(value, f"{prefix}.{key}" if prefix else str(key))
    elif prefix:
        yield prefix


def _explain(error: ValidationError, loaded: Loaded) -> ConfigError:
    """The first of pydantic's errors, with the key and its origin."""
    first = error.errors()[0]
    key = ".".join(str(p) for p in first["loc"])
    if first["type"] == "extra_forbidden":
        section: Any = Settings
        for part in first["loc"][:-1]:
            section = section.model_fields[part].annotation
        return ConfigError(f"{key}: unknown key (from {loaded.origin(key)})", f"choose one of {sorted(section.model_fields)}")
    if first["type"] == "value_error":
        return ConfigError(str(first["ctx"]["error"]), "change one of these settings")
    shown = repr(_hidden(key, first["input"]))[:80]
    return ConfigError(f"{key}: {first['msg']}, found {shown} (from {loaded.origin(key)})", "correct the value")


def dataclass_of(kind: type, overrides: Iterable[str], flag: str) -> Any:
    """An instance of a dataclass, with fields overridden by 'key=value' texts.

    Args:
        flag: the command-line flag that gave the texts, for errors.

    Raises:
        ConfigError: no such field, or a value of the wrong type.
    """
    values: dict[str, str] = {}
    known = [field.name for field in fields(kind)]
    for text in overrides:
        key, mark, value = text.partition("=")
        if not mark or key not in known:
            raise ConfigError(f"{flag} {text}: no such key", f"write KEY=VALUE with one of the keys {', '.join(known)}")
        values[key] = value
    try:
        return TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise ConfigError(f"{flag} {key}={values.get(key)}: {first['msg']}", "give a value of the field's type") from None


def flat(settings: Settings) -> dict[str, Any]:
    """Every setting by its dotted key."""

    def walk(node: Any, prefix: str) -> Iterable[tuple[str, Any]]:
        if isinstance(node, dict) and node:
            for key, value in node.items():
                yield from walk(value, f"{prefix}.{key}" if prefix else key)
        else:
            yield prefix, node

    return dict(walk(settings.model_dump(mode="json"), ""))


def redacted(settings: Settings) -> dict[str, Any]:
    """`flat` without secrets: the values of keys that name one, and passwords in URIs, are replaced by stars."""
    return {key: _hidden(key, value) for key, value in flat(settings).items()}


def is_secret(key: str) -> bool:
    """Whether the name of a setting says that its value is a secret: a password, a token, a credential, a key of an account."""
    return bool(SECRET.search(key)) or (key.startswith(FREE) and bool(KEY.search(key.removeprefix(FREE))))


def _hidden(key: str, value: Any) -> Any:
    """A setting's value, or what stands in its place, without secrets; lists and groups are gone through."""
    if value is not None and is_secret(key):
        return STARS
    if isinstance(value, str):
        return masked(value)
    if isinstance(value, Mapping):
        return {name: _hidden(f"{key}.{name}", inner) for name, inner in value.items()}
    return [_hidden(key, inner) for inner in value] if isinstance(value, list | tuple) else value
