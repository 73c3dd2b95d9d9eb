"""Queries as shoppers type them, and how well each drawn item answers them, from what is true of the items and not from their texts."""

from __future__ import annotations

import functools
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tgq.demo.types import products
from tgq.nuisances.draws import seeded
from tgq.nuisances.spelling import mistyped, plural_of

POOL = 20_000  # items that are asked for and judged, from the first; so queries cost no more in a larger catalog
MOST, PER_ITEM = 500, 0.2  # queries: so many, or so many an item
JUDGED = 300  # items a query, the best first
TYPOS, PLURALS, REORDERED = 0.15, 0.25, 0.3  # shares of the queries
SLIPS = ("left out", "doubled", "changed")  # of typos; more of them would change what a seed draws
ASKED = {"color": 0.75, "material": 0.35, "pattern": 0.3, "trait": 0.25}  # how often a query names a true attribute beside the type
FAMILIES = (
    ("blue", "navy", "sky blue", "teal", "turquoise"), ("red", "burgundy", "magenta", "pink"), ("green", "olive", "lime", "mint"),
    ("purple", "lilac"), ("yellow", "mustard", "orange"), ("brown", "beige"), ("black", "grey", "silver", "white"),
)  # fmt: skip
FAMILY = {colour: number for number, family in enumerate(FAMILIES) for colour in family}

_TEXT, _FLAG = pa.string(), pa.bool_()
QUERIES = pa.schema([
    ("query_id", _TEXT), ("query", _TEXT), ("source", _TEXT), ("popularity", pa.int64()),
    ("asked", _TEXT), ("typo", _FLAG), ("plural", _FLAG), ("reordered", _FLAG),  # the truth about the query
])  # fmt: skip
JUDGMENTS = pa.schema([("query_id", _TEXT), ("item_id", _TEXT), ("grade", pa.int32())])


@dataclass(frozen=True)
class Facts:
    """What is true of an item: its id, its type's place in the category tree, and its attributes."""

    item_id: str
    type: str
    attributes: dict[str, str]

    @classmethod
    def of(cls, row: dict[str, Any]) -> Facts:
        """Of a row of the drawn catalog."""
        return cls(row["item_id"], row["category"], json.loads(row["true_attributes"]))


def write_queries(out: Path, items: Sequence[Facts], seed: int) -> int:
    """Write `queries.parquet` (QUERIES) and `judgments.parquet` (JUDGMENTS) into `out`. Returns the number of queries.

    They depend on the items and the seed. Cost: each query is compared with the items of its type.
    """
    by_type: dict[str, list[Facts]] = {}
    for item in items:
        by_type.setdefault(item.type, []).append(item)
    queries, judgments, seen = [], [], set()
    for number in range(min(MOST, max(1, round(PER_ITEM * len(items))))):
        r = seeded(seed, "query", number)
        target = r.choice(items)
        asked = _asked(r, target)
        row = {"query_id": f"{seed}-q{number:05d}", "source": "generated", "popularity": round(2000 / (number + 1) ** 0.9) + 1, "asked": json.dumps(asked)}
        row |= spelled(r, target.type, asked)
        if row["query"] in seen:
            continue
        seen.add(row["query"])
        queries.append(row)
        graded = [(grade(asked, item.attributes), item.item_id) for item in by_type[target.type]]
        r.shuffle(graded)
        graded.sort(key=lambda pair: -pair[0])
        judgments += [{"query_id": row["query_id"], "item_id": item_id, "grade": worth} for worth, item_id in graded[:JUDGED]]
    pq.write_table(pa.Table.from_pylist(queries, QUERIES), out / "queries.parquet")
    pq.write_table(pa.Table.from_pylist(judgments, JUDGMENTS), out / "judgments.parquet")
    return len(queries)


def grade(asked: dict[str, str], true: dict[str, str]) -> int:
    """How well an item of the right type has what is asked: 3 all of it, 2 nearly, 1 the type alone.

    Nearly: with another colour of the same family, or with one of several attributes different.
    """
    wrong = [name for name, value in asked.items() if true.get(name) != value]
    if not wrong:
        return 3
    if len(wrong) == 1 and (len(asked) > 1 or (wrong == ["color"] and FAMILY[asked["color"]] == FAMILY.get(true.get("color", "")))):
        return 2
    return 1


def spelled(r: random.Random, type_path: str, asked: dict[str, str]) -> dict[str, Any]:
    """The query's text in lower case, and whether it is in the plural, in an unusual order, or mistyped."""
    noun = r.choice(_nouns()[type_path]).lower()
    plural, reordered, typo = r.random() < PLURALS, r.random() < REORDERED, r.random() < TYPOS
    if plural:
        plural = plural_of(noun) != noun
        noun = plural_of(noun)
    words = list(asked.values())
    if reordered:
        text = f"{noun} in {words[0]} {' '.join(words[1:])}" if r.random() < 0.5 else f"{noun} {' '.join(r.sample(words, len(words)))}"
    else:
        text = " ".join((*words, noun))
    text = " ".join(text.split())
    return {"query": mistyped(r, text, SLIPS) if typo else text, "plural": plural, "reordered": reordered, "typo": typo}


def _asked(r: random.Random, target: Facts) -> dict[str, str]:
    """Some true attributes of an item, at least one, in the order in which they are usually typed."""
    plain = {name: target.attributes[name] for name in ("color", "pattern", "material") if target.attributes.get(name) not in (None, "solid")}
    traits = sorted(name for name, value in target.attributes.items() if name not in ("color", "pattern", "material", "size") and value != "none")
    asked = {name: value for name, value in plain.items() if r.random() < ASKED[name]}
    if traits and r.random() < ASKED["trait"]:
        name = r.choice(traits)
        asked[name] = target.attributes[name]
    return asked or {"color": target.attributes["color"]}


@functools.lru_cache(maxsize=1)
def _nouns() -> dict[str, tuple[str, ...]]:
    return {product.path: product.nouns for product in products()}
