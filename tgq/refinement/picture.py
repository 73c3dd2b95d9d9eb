"""Pictures as a language model is shown them: small JPEGs, whatever the shop's files are."""

from __future__ import annotations

import io

from tgq.images.decode import ImageLimits, decode_image

SIDE = 448  # pixels of the longer side: some 250 tokens of most models, and 30 kB of a request
QUALITY = 90


def shown(data: bytes, limits: ImageLimits) -> bytes:
    """A picture as an upright RGB JPEG, at most SIDE pixels wide and high. A smaller one keeps its size.

    Raises:
        ImageError: as `decode_image`.
    """
    image = decode_image(data, limits, target=SIDE)
    image.thumbnail((SIDE, SIDE))
    sink = io.BytesIO()
    image.save(sink, "JPEG", quality=QUALITY)
    return sink.getvalue()
