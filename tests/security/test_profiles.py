"""Profiles and values of --set that are more than data: tags that build objects, aliases that multiply, documents that never end."""

import pytest

from tgq.errors import ConfigError
from tgq.settings.load import load_settings

LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True))
MERGES = "a: &a {x: 1}\n" + "".join(f"{b}: &{b} {{{', '.join(f'k{n}: *{a}' for n in range(10))}}}\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True))

TAGS = {
    "apply": "!!python/object/apply:os.system ['touch {trap}']", "apply-long": "!<tag:yaml.org,2002:python/object/apply:os.system> ['touch {trap}']",
    "new": "!!python/object/new:subprocess.Popen [['touch', '{trap}']]", "object": "!!python/object:builtins.open {{}}",
    "name": "!!python/name:os.system", "module": "!!python/module:os", "tuple": "!!python/tuple [1, 2]", "complex": "!!python/complex 1j",
    "own-tag": "!include /etc/hostname", "environment-tag": "!ENV HOME",
}  # fmt: skip


@pytest.mark.parametrize("value", TAGS.values(), ids=TAGS)
def test_a_tag_that_builds_an_object(tmp_path, value):
    trap, profile = tmp_path / "sprung", tmp_path / "mine.yaml"
    value = value.format(trap=trap)
    profile.write_text(f"catalog:\n  path: {value}\n")
    for profiles, overrides, environ in (([profile], (), {}), ((), [f"catalog.path={value}"], {}), ((), (), {"TGQ__CATALOG__PATH": value})):
        with pytest.raises(ConfigError, match="could not determine a constructor for the tag") as caught:
            load_settings(profiles, overrides, environ)
        assert "\n" not in str(caught.value) and caught.value.exit_code == 2 and not trap.exists()


DOCUMENTS = {
    "aliases-that-multiply": (LAUGHS.encode(), "its aliases stand for"), "groups-that-multiply": (MERGES.encode(), "its aliases stand for"),
    "value-in-itself": (b"catalog: &a\n  path: [*a]\n", "a value contains itself by an alias"),
    "group-in-itself": (b"catalog: &a {columns: *a}\n", "a value contains itself by an alias"), "nested-too-deeply": (b"a: " + b"[" * 5000, "write"),
    "unknown-alias": (b"catalog: *nobody\n", "found undefined alias"), "twice": (b"catalog: {path: a, path: b}\n", "duplicate key"),
    "not-utf-8": (b"catalog: {path: '\xff'}\n", "write valid YAML"), "zero-bytes": (b"catalog\0: 1\n", "write valid YAML"),
    "pickle": (b"\x80\x04K\x01.", "write valid YAML"), "a-list": (b"[1, 2]\n", "ListConfig at the top level"), "a-text": (b"hello\n", "hello: unknown key"),
    "two-documents": (b"a: 1\n---\nb: 2\n", "expected a single document"),
    "loop-of-references": (b"catalog: {path: '${catalog.table}', table: '${catalog.path}'}\n", "configuration"),
    "number-too-long": (b"embed: {task_items: " + b"9" * 5000 + b"}\n", "Exceeds the limit"),
    "unknown-section": (b"__class__: {__init__: 1}\n", "__class__: unknown key"), "unknown-key": (b"catalog: {__globals__: 1}\n", "__globals__: unknown key"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "said"), DOCUMENTS.values(), ids=DOCUMENTS)
def test_a_document_that_is_no_profile(tmp_path, content, said):
    (tmp_path / "mine.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match=said) as caught:
        load_settings([tmp_path / "mine.yaml"], (), {})
    assert "\n" not in str(caught.value) and str(caught.value).isprintable()


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "catalogs/../../secrets", "local\0", "file:///etc/passwd", "http://127.0.0.1/x"])
def test_a_profile_with_the_name_of_a_path(name):
    with pytest.raises(ConfigError, match="there is no profile"):
        load_settings([name], (), {})


def test_aliases_that_stand_for_few_values_are_fine(tmp_path):
    (tmp_path / "mine.yaml").write_text("images: {allowed_hosts: &h [a.example, b.example]}\ncatalog: {slice_columns: *h}\n")
    assert load_settings([tmp_path / "mine.yaml"], (), {}).settings.catalog.slice_columns == ("a.example", "b.example")
