"""The grounding policy of settings and of a published generation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tgq.errors import ModelError, WarehouseError
from tgq.grounding.policy import NONE, Policy
from tgq.registry.champion import local_folder
from tgq.registry.loading import versions_of
from tgq.retrieval.manifest import Manifest
from tgq.settings.enrich import GroundingSettings

IDENTITY = "identity"


def policy_of(settings: GroundingSettings, model_folder: str) -> Policy | None:
    """The policy of these settings for an encoder's folder or URI; None if grounding is off, which costs nothing.

    Cost: hashes of the detector's files, once per process.

    Raises:
        ModelError: the detector's files are missing, or the encoder has no anchor and should ground by it.
        ConfigError: the file of phrases cannot be used.
    """
    if settings.detector == NONE:
        return None
    return Policy.of(settings, Path(local_folder(model_folder)), versions_of(model_folder)[0])


def noted_grounding(settings: GroundingSettings, model_folder: str) -> dict[str, Any] | None:
    """What a manifest says about how the pictures of its generation were cropped; None if they were not. Raises as `policy_of`."""
    policy = policy_of(settings, model_folder)
    return None if policy is None else {**settings.model_dump(mode="json"), IDENTITY: policy.identity}


def published_policy(published: Manifest, settings: GroundingSettings, model_folder: str) -> Policy | None:
    """The policy by which the pictures of a published generation were cropped, for a picture that is searched by; None if they were not.

    Args:
        settings: a detector that they name is used in place of the one that the generation names, which may be in another place by now.

    Raises:
        ModelError: the detector is missing, or has other weights.
        WarehouseError: what the manifest says about grounding is no such thing.
        ConfigError: the file of phrases cannot be used.
    """
    if published.grounding is None:
        return None
    noted = dict(published.grounding)
    identity = noted.pop(IDENTITY, None)
    try:
        wanted = GroundingSettings.model_validate(noted)
    except ValidationError as error:
        found = " ".join(str(error.errors()[0]["msg"]).split())
        raise WarehouseError(f"generation {published.generation} has unusable grounding settings ({found})", "publish it again") from None
    if settings.detector != NONE:
        wanted = wanted.model_copy(update={"detector": settings.detector})
    policy = policy_of(wanted, model_folder)
    if policy is None or policy.identity != identity:
        raise ModelError(
            f"the pictures of generation {published.generation} were cropped by another detector than {wanted.detector} is now",
            "set enrich.grounding.detector to that one",
        )
    return policy
