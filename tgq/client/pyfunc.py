"""The encoder as an MLflow model: `mlflow.pyfunc.load_model("models:/tgq-encoder@champion")`. Nothing is unpickled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

    from tgq.client.encoder import Encoder


class EncoderModel:
    """The object that `mlflow.pyfunc` wraps."""

    def __init__(self, encoder: Encoder):
        self.encoder = encoder

    def predict(self, items: pd.DataFrame, params: dict[str, Any] | None = None) -> np.ndarray:
        """Unit vectors, float32 [n, De].

        Args:
            items: any of the columns title, brand, category, attributes (JSON text) and image (encoded bytes); null for none.
        """
        rows = [{name: None if _is_null(value) else value for name, value in row.items()} for row in items.to_dict("records")]
        return self.encoder.encode(items=rows)


def _is_null(value: Any) -> bool:
    return value is None or (isinstance(value, float) and value != value)


def _load_pyfunc(path: str) -> EncoderModel:
    """Load the model; MLflow calls this with its folder."""
    from tgq.client.encoder import load_encoder

    return EncoderModel(load_encoder(path, device="auto"))
