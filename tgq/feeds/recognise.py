"""Which column of an unknown feed is which field: by the names that shops and data sets use, and by a look at the cells."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tgq.feeds.columns import bare

NAMES: dict[str, tuple[str, ...]] = {  # in order of preference
    "item_id": ("item_id", "itemid", "product_id", "productid", "article_id", "variant sku", "sku", "id", "asin", "parent_asin", "uid", "code", "ean", "gtin"),
    "title": ("title", "name", "product_name", "productname", "product_title", "productdisplayname", "item_name", "prod_name", "caption"),
    "brand": ("brand", "brand_name", "vendor", "manufacturer", "maker", "store", "brands"),
    "category": (
        "category", "category_path", "product category", "google_product_category", "product_type", "categories", "category_name",
        "product_type_name", "main_category", "type", "department",
    ),
    "attributes": ("attributes", "specifications", "specs", "details", "features", "properties"),
    "image_uri": ("image", "image_link", "image_url", "image_uri", "variant image", "image src", "images", "img", "picture", "photo", "main_image"),
    "image_bytes": ("image_bytes", "image.bytes", "picture_bytes"),
    "additional_images": ("additional_images", "additional_image_link", "additional_image_links", "other_images"),
    "group_id": ("group_id", "item_group_id", "product_group", "style_id", "style", "model_id", "parent", "parent_id", "handle"),
    "variant_id": ("variant_id", "color_id", "colour_id"),
}  # fmt: skip
SHOPS = {  # shipped profile -> the names by which its exports are known
    "shopify": ("handle", "variant sku", "vendor", "image src"),
    "google-merchant": ("id", "title", "image_link", "availability"),
    "woocommerce": ("sku", "name", "categories", "images", "parent"),
}
ATTRIBUTES = ("color", "colour", "size", "material", "pattern", "gender", "season", "style", "fit", "age_group")
PLAIN = re.compile(r"[A-Za-z_][\w ]*")


@dataclass(frozen=True)
class Recognised:
    """What is known of a feed's columns.

    Attributes:
        fields: field -> column.
        attributes: attribute -> column, where attributes have columns of their own.
        doubts: sentences about fields without a column, and about ids that are missing or stand twice.
        others: columns that no field uses.
        shop: the shipped profile that fits better than a new one, if any.
    """

    fields: Mapping[str, str]
    attributes: Mapping[str, str]
    doubts: tuple[str, ...]
    others: tuple[str, ...]
    shop: str | None


def recognise(columns: Sequence[str], sample: Sequence[Mapping[str, Any]]) -> Recognised:
    """Match columns to fields by name; the id may also be known by its cells, which are all there and all different.

    Args:
        columns: the feed's names.
        sample: its first rows, by name.
    """
    known = {_key(column): column for column in reversed(columns)}
    fields = {field: known[_key(name)] for field, names in NAMES.items() for name in reversed(names) if _key(name) in known}
    doubts = []
    if "item_id" not in fields:
        unique = [c for c in columns if c not in fields.values() and sample and len({str(r.get(c)) for r in sample if r.get(c)}) == len(sample)]
        if unique:
            fields = {"item_id": unique[0], **fields}
            doubts.append(f"no column is called like an id; '{unique[0]}' is taken because its {len(sample)} sampled cells differ")
        else:
            doubts.append("no column looks like an id: name it in catalog.columns.item_id")
    elif sample:
        cells = [str(r.get(fields["item_id"]) or "").strip() for r in sample]
        if empty := cells.count(""):
            doubts.append(f"{empty} of {len(cells)} sampled rows have no {fields['item_id']}: they would be quarantined")
        if twice := len([c for c in cells if c]) - len({c for c in cells if c}):
            doubts.append(f"the {fields['item_id']} of {twice} of {len(cells)} sampled rows stands twice: these rows would be quarantined")
    own = {} if "attributes" in fields else {bare(c): c for c in columns if bare(c) in ATTRIBUTES and c not in fields.values()}
    missing = [f for f in ("title", "brand", "category", "group_id") if f not in fields]
    if missing:
        doubts.append(f"no column was recognised for {', '.join(missing)}")
    if not {"image_uri", "image_bytes"} & set(fields):
        doubts.append("no column was recognised for pictures")
    shop = next((name for name, names in SHOPS.items() if all(_key(n) in known for n in names)), None)
    used = {*fields.values(), *own.values()}
    return Recognised(fields, own, tuple(doubts), tuple(c for c in columns if c not in used), shop)


def profile_text(found: Recognised, catalog: str) -> str:
    """A commented YAML profile."""
    lines = [f"# Profile for {catalog}. Written by `tgq init`: check each line, then run", "#   tgq nightly --conf local --conf THIS_FILE --dry-run",
             "catalog:", f"  path: {_yaml(catalog)}", "  columns:"]  # fmt: skip
    for field in NAMES:
        if field in found.fields:
            lines.append(f"    {field}: {_yaml(found.fields[field])}")
        elif field == "attributes" and found.attributes:
            lines.append("    attributes: {" + ", ".join(f"{_yaml(n)}: {_yaml(c + '?')}" for n, c in found.attributes.items()) + "}")
        elif field == "item_id":
            lines.append("    # item_id: NAME THE COLUMN OF THE ID")
        else:
            lines.append(f"    {field}: null{' ' * max(1, 20 - len(field))}# not recognised")
    lines += [f"# {doubt}" for doubt in found.doubts]
    if found.others:
        lines.append(f"# not used: {', '.join(found.others)}")
    return "\n".join(lines) + "\n"


def _key(name: str) -> str:
    return re.sub(r"[\s_-]+", "", bare(name).removeprefix("g:"))


def _yaml(text: str) -> str:
    return text if PLAIN.fullmatch(text) and text.lower() not in ("null", "true", "false", "yes", "no", "on", "off") and text == text.strip() \
        else json.dumps(text, ensure_ascii=False)  # fmt: skip
