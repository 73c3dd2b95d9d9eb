"""A variant as a row of the multiplied catalog: what a shop would show, and the truth about it."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from tgq.multiply.options import Options
from tgq.multiply.picture import picture_of
from tgq.multiply.plan import Plan

_TEXT, _FLAG = pa.string(), pa.bool_()
SHOWN = {
    "item_id": _TEXT, "parent_id": _TEXT, "group_id": _TEXT, "variant_id": _TEXT, "title": _TEXT, "brand": _TEXT, "category": _TEXT,
    "attributes": pa.map_(_TEXT, _TEXT), "image_bytes": pa.binary(),
}  # fmt: skip
TRUTH = {  # an encoder must not read these
    "true_title": _TEXT, "distractors": pa.int32(), "same_category": _FLAG, "overlay": _FLAG, "background": _TEXT,
    "box": pa.list_(pa.float32()), "seed": pa.int64(),
}  # fmt: skip
ROW = pa.schema(SHOWN | TRUTH)
SLICES = ("overlay", "background", "distractors", "same_category")  # columns that metrics are sliced by


def row_of(options: Options, plan: Plan) -> dict[str, Any]:
    """Draw a planned variant. Returns a row of ROW; empty texts are null."""
    product, told, picture = plan.product, plan.told, picture_of(options, plan)
    return {
        "item_id": f"{product.item_id}#{plan.number}", "parent_id": product.item_id, "group_id": product.group_id, "variant_id": product.variant_id,
        "title": told.title or None, "brand": told.brand or None, "category": told.category or None, "attributes": list(told.attributes.items()),
        "image_bytes": picture.jpeg(), "true_title": product.title or None, "distractors": len(plan.others), "same_category": plan.same_category,
        "overlay": plan.banner, "background": picture.background, "box": list(picture.box), "seed": options.seed,
    }  # fmt: skip
