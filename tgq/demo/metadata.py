"""Metadata: what a shop's staff type about an item, with their usual mistakes, and the truth about both."""

from __future__ import annotations

import json
import random
from typing import Any

from tgq.demo.drawing.surface import COLOURS
from tgq.demo.styles import Style, Variant

ADJECTIVES = ("Classic", "Modern", "Everyday", "Premium", "Comfort", "Essential", "Vintage", "Urban", "Lightweight", "Elegant", "Casual", "Original", "Compact",
              "Signature")  # fmt: skip
PROMISES = ("Best Price", "New", "2024 Edition", "Free Gift", "Imported", "Hot Seller", "Pack of 1")
NOISES = {"none": 0.56, "shuffled": 0.12, "wrong colour": 0.09, "typo": 0.08, "upper case": 0.05, "missing words": 0.05, "promotion": 0.05}
MISSING_BRAND = 0.1
MISSING_ATTRIBUTE = 0.15
USES = ("for every day", "for home and travel", "that lasts", "at a fair price", "made to be used", "loved by our customers")


def describe(r: random.Random, style: Style, variant: Variant, traits: dict[str, str]) -> dict[str, Any]:
    """What the catalog says about an item and what is wrong with it, by column. No word of it belongs to one style alone."""
    noise = r.choices(list(NOISES), list(NOISES.values()))[0]
    nameless = r.random() < MISSING_BRAND
    colour = r.choice([c for c in COLOURS if c != variant.colour]) if noise == "wrong colour" else variant.colour
    words = [style.brand.name] if not nameless else []
    adjective, noun = r.choice(ADJECTIVES), r.choice(style.product.nouns)
    words.append(adjective)
    if r.random() < 0.35:
        words.append(style.material.title())
    words.append(noun)
    if noise == "missing words":
        words.remove(adjective)
    if noise == "typo":
        words[-1] = _swap(r, words[-1])
    if variant.size and r.random() < 0.7:
        words.append(variant.size)
    words.insert(r.choice((len(words), len(words), 1)), colour.title())
    if noise == "shuffled":
        ordered = " ".join(words).split()
        words = list(ordered)
        while words == ordered:
            r.shuffle(words)
    if noise == "promotion":
        words.insert(r.choice((0, len(words))), r.choice(PROMISES))
    title = " ".join(words)
    facts = truth(style, variant, traits)
    told = {k: v for k, v in facts.items() if r.random() >= MISSING_ATTRIBUTE}
    return {
        "title": title.upper() if noise == "upper case" else title,
        "brand": "" if nameless else style.brand.name,
        "attributes": json.dumps(told),
        "description": f"{noun} in {style.material} {r.choice(USES)}." if r.random() < 0.85 else "",
        "title_noise": noise,
        "missing_brand": nameless,
        "missing_attributes": len(facts) - len(told),
    }


def truth(style: Style, variant: Variant, traits: dict[str, str]) -> dict[str, str]:
    """All attributes of an item as they are."""
    size = {"size": variant.size} if variant.size else {}
    return {"color": variant.colour, "material": style.material, "pattern": style.pattern, **traits, **size}


def _swap(r: random.Random, word: str) -> str:
    """Two neighbouring letters the wrong way round."""
    places = [i for i in range(len(word) - 1) if word[i] != word[i + 1] and " " not in word[i : i + 2]]
    i = r.choice(places)
    return word[:i] + word[i + 1] + word[i] + word[i + 2 :]
