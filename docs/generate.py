"""Reference pages from the code: the command line, the settings, the tables. Each function returns one page as Markdown."""

from __future__ import annotations

import inspect
import json
import re
import textwrap
import tokenize
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import typer

from tgq.cli.app import app
from tgq.encoder.config import EncoderConfig
from tgq.settings.load import data_folder, flat, load_settings
from tgq.settings.sections import Section, Settings
from tgq.training.trainer import TrainConfig

GROUPS = {
    "A night": ("nightly",),
    "Steps of a night": ("ingest", "validate", "enrich", "embed", "index", "neighbors", "evaluate", "publish", "report"),
    "Look into a warehouse": ("search", "tables", "robustness", "export", "export-query-tower"),
    "Upkeep": ("maintain",),
    "Encoders": ("train", "calibrate", "train-queries", "train-attributes", "promote", "rollback-model", "models"),
    "Catalogs": ("init", "demo-catalog", "multiply"),
    "Machine and settings": ("doctor", "setup", "jars", "config"),
}
SHARED = ("profiles", "sets", "catalog", "warehouse", "run_id", "summary")
EXIT_CODES = """| exit code | means |
|---|---|
| 0 | done |
| 1 | failed |
| 2 | wrong usage or configuration |
| 3 | the quality gate refused the night, or the comparison refused the promotion |
| 130 | interrupted; the same command goes on where it stopped |
"""


def cli() -> str:
    """The command line, a section per command, in the order of GROUPS.

    Raises:
        KeyError: a command is in no group.
    """
    commands: dict[str, Any] = typer.main.get_command(app).commands
    grouped = [name for names in GROUPS.values() for name in names]
    if missing := set(commands) - set(grouped):
        raise KeyError(f"commands without a group: put {', '.join(sorted(missing))} into GROUPS in docs/generate.py")
    shared = [p for p in commands["nightly"].params if p.name in SHARED]
    parts = [
        "# Command line",
        "Every command has `--help`. The words in capitals are values that you give. An error is one line on standard error: what was "
        "found, and what to do.",
        EXIT_CODES,
        "## Options that many commands share",
        _options(shared),
    ]
    for group, names in GROUPS.items():
        parts.append(f"## {group}")
        for name in names:
            parts += _command(f"tgq {name}", commands[name], {p.name: p.help for p in shared})
    return "\n\n".join(parts) + "\n"


def _command(name: str, command: Any, shared: dict[str, str]) -> Iterator[str]:
    children = getattr(command, "commands", {})
    if not children or command.invoke_without_command:
        yield f"### {name}"
        text, _, examples = (command.callback.__doc__ or command.help or "").partition("Example:")
        yield " ".join((text if command.callback.__doc__ else command.help).split())
        arguments = [p for p in command.params if p.param_type_name == "argument"]
        options = [p for p in command.params if p.param_type_name == "option" and p.name != "help"]
        usage = " ".join([name, *(p.metavar or p.name.upper() for p in arguments), *(["[OPTIONS]"] if options else [])])
        yield f"```text\n{usage}\n```"
        common = [p for p in options if shared.get(p.name) == p.help]
        if own := [p for p in (*arguments, *options) if p not in common]:
            yield _options(own)
        if common:
            yield f"Shared options: {', '.join(f'`{max(p.opts, key=len)}`' for p in common)}."
        lines = [_wrapped(" ".join(part.split())) for part in examples.split("Example:") if part.strip()]
        if lines:
            yield "```bash\n" + "\n".join(lines) + "\n```"
        if name == "tgq train":
            yield "#### Keys of `--model`"
            yield _keys(EncoderConfig)
            yield "#### Keys of `--option`"
            yield _keys(TrainConfig)
    for child, inner in children.items():
        yield from _command(f"{name} {child}", inner, shared)


def _wrapped(command: str) -> str:
    """A command above 90 characters with each option on a line of its own."""
    return command if len(command) <= 90 else command.replace(" --", " \\\n  --")


def _options(parameters: Iterable[Any]) -> str:
    return "\n".join(["| option | meaning | default |", "|---|---|---|", *map(_option, parameters)])


def _spelling(option: Any) -> str:
    if option.param_type_name == "argument":
        return option.metavar or option.name.upper()
    names = sorted(option.opts, key=len, reverse=True)
    if option.is_flag:
        return ", ".join(names)
    kinds = {"int": "NUMBER", "Path": "PATH"}
    kind = getattr(option.type_descriptor.annotation, "__name__", "")
    return f"{', '.join(names)} {option.metavar or kinds.get(kind, 'TEXT')}"


def _option(parameter: Any) -> str:
    text = re.sub(r"\s*\[default: .*\]$", "", parameter.help or "").removesuffix(".")
    shown = parameter.show_default if isinstance(parameter.show_default, str) else parameter.default
    if stated := re.search(r"\[default: (.*)\]$", parameter.help or ""):
        shown = stated[1]
    default = "" if shown is None or shown is False or parameter.required else f"`{shown}`"
    return f"| `{_spelling(parameter)}` | {_cell(text)} | {'required' if parameter.required else default} |"


def _keys(kind: Any) -> str:
    said = _comments(kind)
    rows = [f"| `{name}` | {_cell(said.get(name, ''))} | `{field.default}` |" for name, field in kind.__dataclass_fields__.items()]
    return "\n".join(["| key | meaning | default |", "|---|---|---|", *rows])


def configuration() -> str:
    """All settings, a table per section. Types and limits come from pydantic, meanings from the comments behind the fields."""
    parts = [
        "# Configuration",
        "A setting has a dotted key, such as `embed.task_items`. Its value comes from the last of these layers that sets it:",
        "1. `conf/base.yaml`\n2. profiles, in the order of `--conf`: names under `conf/` or YAML files of your own\n"
        "3. environment variables: `TGQ__EMBED__TASK_ITEMS=64`\n4. `--set embed.task_items=64`",
        "`tgq config show` prints every setting and the layer that it came from. An unknown key, a wrong type and an impossible "
        "combination are errors that name the key and its origin.",
    ]
    defaults, said = flat(load_settings([], environ={}).settings), descriptions()
    for name, field in Settings.model_fields.items():
        kind: Any = field.annotation
        parts += [f"## {name}", inspect.cleandoc(kind.__doc__)]
        rows = []
        for key, spelled in settings_of(kind, name):
            prefix = f"{key}."
            default = defaults[key] if key in defaults else {k.removeprefix(prefix): v for k, v in defaults.items() if k.startswith(prefix)}
            shown = json.dumps(default, ensure_ascii=False)
            rows.append(f"| `{key}` | {_cell(said.get(key, ''))}<br><em>{_cell(spelled)}</em> | `{_cell(shown)}` |")
        parts.append("\n".join(["| key | meaning, <em>type</em> | default |", "|---|---|---|", *rows]))
    return "\n\n".join(parts) + "\n"


def settings_of(kind: type[Section], prefix: str) -> Iterator[tuple[str, str]]:
    """(dotted key, type in words) of a section's settings and of the sections in it."""
    schema = kind.model_json_schema()
    for name, field in kind.model_fields.items():
        inner = field.annotation
        if inspect.isclass(inner) and issubclass(inner, Section):
            yield from settings_of(inner, f"{prefix}.{name}")
        else:
            yield f"{prefix}.{name}", _type(schema["properties"][name])


def descriptions(kind: type[Section] = Settings, prefix: str = "") -> dict[str, str]:
    """What each setting means, by dotted key: the comment behind its field."""
    said = {f"{prefix}{name}": text for name, text in _comments(kind).items()}
    for name, field in kind.model_fields.items():
        inner = field.annotation
        if inspect.isclass(inner) and issubclass(inner, Section):
            said |= descriptions(inner, f"{prefix}{name}.")
    return said


def _type(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        *others, last = ["null" if part.get("type") == "null" else _type(part) for part in schema["anyOf"]]
        return f"{', '.join(others)} or {last}"
    if "enum" in schema:
        return f"one of {', '.join(f'`{value}`' for value in schema['enum'])}"
    if "const" in schema:
        return f"`{schema['const']}`"
    if schema["type"] == "array":
        return f"list of {_type(schema['items'])}"
    if schema["type"] == "object":
        return f"map of names to {_type(schema['additionalProperties'])}"
    words = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false"}
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    limits = ", ".join(f"{sign} {schema[name]:g}" for name, sign in signs.items() if name in schema)
    return f"{words[schema['type']]} {limits}".strip()


def _comments(kind: type) -> dict[str, str]:
    """Field -> the comment behind it, or else the comment lines right above it, from the source of a class and of its bases."""
    return {field: text for base in reversed(kind.__mro__) if "__annotations__" in vars(base) for field, text in _own_comments(base).items()}


def _own_comments(kind: type) -> dict[str, str]:
    source = textwrap.dedent(inspect.getsource(kind))
    found: dict[str, str] = {}
    field, above = None, []
    tokens = list(tokenize.generate_tokens(iter(source.splitlines(keepends=True)).__next__))
    for before, token in zip([tokens[0], *tokens], tokens, strict=False):
        if token.type == tokenize.NAME and token.string in kind.__annotations__ and before.type in (
            tokenize.NEWLINE, tokenize.NL, tokenize.INDENT, tokenize.COMMENT, tokenize.DEDENT
        ):  # fmt: skip
            field = token.string
            if above:
                found[field], above = " ".join(above), []
        elif token.type == tokenize.COMMENT:
            text = token.string.lstrip("# ").strip()
            if token.line.lstrip().startswith("#"):
                above.append(text)
            elif field and not text.startswith("fmt:"):
                found[field] = text
        elif token.type == tokenize.NL and not token.line.strip():
            above = []
    return found


def tables() -> str:
    """Tables, views and analyses from the files of `sql/`."""
    sql = data_folder("sql")
    parts = [
        "# Tables and views",
        "All tables are Delta tables in the warehouse's folder, or in a metastore schema (`warehouse.metastore_schema`). "
        "The same DDL makes both.",
        "## Tables",
        *(part for file in sorted((sql / "ddl").glob("*.sql")) for part in _table(file)),
        "## Views",
        "Views are created anew after each publication. The `published_` views that they read are pinned to the Delta versions of the "
        "current generation.",
        *(part for file in sorted((sql / "views").glob("*.sql")) for part in _query(file)),
        "## Analyses",
        "Questions with a small answer, as files that run as they stand: `tgq tables --file sql/analyses/near_duplicates.sql`.",
        *(part for file in sorted((sql / "analyses").glob("*.sql")) for part in _query(file)),
    ]
    return "\n\n".join(parts) + "\n"


def _table(file: Path) -> Iterator[str]:
    text, statement = _leading(file)
    yield f"### {file.stem}"
    yield text
    rows = []
    for line in statement.splitlines():
        if found := re.match(r"  (\w+) +((?:ARRAY|MAP)<[^>]+>|\w+)( NOT NULL)?(?: COMMENT '((?:[^']|'')*)')?,?$", line):
            name, kind, required, comment = found.groups()
            meaning = _cell((comment or "").replace("''", "'"))
            rows.append(f"| `{name}` | `{kind}` | {'no' if required else 'yes'} | {meaning} |")
    yield "\n".join(["| column | type | null | meaning |", "|---|---|---|---|", *rows])


def _query(file: Path) -> Iterator[str]:
    text, query = _leading(file)
    yield f"### {file.stem}"
    yield text
    yield '??? "SQL"\n\n' + textwrap.indent(f"```sql\n{query}\n```", "    ")


def _leading(file: Path) -> tuple[str, str]:
    """The comment at the top of a SQL file as text, and the rest."""
    lines = file.read_text().splitlines()
    n = next((i for i, line in enumerate(lines) if not line.startswith("--")), len(lines))
    return " ".join(line.removeprefix("--").strip() for line in lines[:n]), "\n".join(lines[n:]).strip()


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
