"""What all sections of the settings have in common."""

from __future__ import annotations

import ipaddress
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """A frozen group of settings; an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)


def need_networks(key: str, value: tuple[str, ...]) -> tuple[str, ...]:
    """The value of a setting that lists networks.

    Raises:
        ValueError: one of them is no network.
    """
    for network in value:
        try:
            ipaddress.ip_network(network, strict=False)
        except ValueError:
            raise ValueError(f"{key}: '{network}' is no network, such as 10.0.0.0/8 or fd00::/8") from None
    return value
