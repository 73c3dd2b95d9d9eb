"""Object stores through fsspec: every listing is asked of the store, because Spark writes there too, and errors are one line.

Credentials and addresses come from the environment, or from the options that a reader gave to delta-rs (`using`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import fsspec

from tgq.errors import StoreError, TgqError

EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}  # scheme -> extra of tgq that installs its client
ENDPOINT = "AWS_ENDPOINT_URL"  # read by s3fs, delta-rs and Spark alike
S3 = ("s3", "s3a")
# options of delta-rs without `aws_`, as arguments of s3fs
_ARGUMENTS = {"access_key_id": "key", "secret_access_key": "secret", "session_token": "token", "endpoint_url": "endpoint_url", "endpoint": "endpoint_url"}
_options: ContextVar[Mapping[str, str] | None] = ContextVar("options", default=None)


def is_uri(path: str) -> bool:
    """Whether a path names an object store or another remote file system."""
    return "://" in path and not path.startswith("file:")


def scheme_of(path: str) -> str:
    """The scheme of a URI in lower case; empty for a path."""
    return path.partition("://")[0].lower() if "://" in path else ""


@contextmanager
def using(options: Mapping[str, str] | None) -> Iterator[None]:
    """Open stores with these options of delta-rs in the block, in this thread. None: with the environment alone."""
    token = _options.set(options)
    try:
        yield
    finally:
        _options.reset(token)


def file_system(path: str) -> tuple[Any, str]:
    """fsspec's file system of a path or URI, and the path in it.

    Raises:
        StoreError: the package for this kind of store is not installed.
    """
    options = {"use_listings_cache": False, **_arguments(path)} if is_uri(path) else {}
    try:
        found: tuple[Any, str] = fsspec.core.url_to_fs(path, **options)
        return found
    except ImportError as error:
        extra = EXTRAS.get(scheme_of(path))
        do = f"pip install 'tgq[{extra}]'" if extra else "install it"
        raise StoreError(f"{path} needs a package that is not installed ({' '.join(str(error).split())})", do) from None


@contextmanager
def asked(path: str, missing: bool = True) -> Iterator[None]:
    """Raise what a store's client raises in this block as StoreError; of a local path as it is.

    Args:
        missing: whether FileNotFoundError stays as it is. When something is written it means that there is no such bucket.
    """
    try:
        yield
    except (TgqError, FileExistsError):
        raise
    except Exception as error:  # each store's client has classes of its own
        if not is_uri(path) or (missing and isinstance(error, FileNotFoundError)):
            raise
        raise store_error(path, error) from error


def store_error(path: str, error: Exception) -> StoreError:
    """What a store's client raised, with what to do about it."""
    kind, said = type(error).__name__, " ".join(str(error).split())[:300] or type(error).__name__
    if isinstance(error, FileNotFoundError):
        return StoreError(f"{path} cannot be written ({said})", "create the bucket, or name another one")
    if "credentials" in said.lower() or "Credentials" in kind:
        return StoreError(f"no credentials for {path} ({said})", _CREDENTIALS)
    if isinstance(error, PermissionError):
        return StoreError(f"{path}: the store refuses access ({said})", f"check the credentials and what they permit; {_CREDENTIALS}")
    if "Connect" in kind or isinstance(error, ConnectionError | TimeoutError):
        return StoreError(f"the store of {path} does not answer ({said})", f"check the network, and {ENDPOINT} if the store is not Amazon's")
    return StoreError(f"{path}: the store fails ({said})", "run the same command again; if it fails again, see the store's log")


_CREDENTIALS = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or what the store's client reads in their place"


def delta_options(path: str, options: Mapping[str, str] | None = None) -> dict[str, str] | None:
    """The options with which delta-rs opens a table: those given, and leave to use an address without TLS if they or the environment name one."""
    given = _of_s3(options) if scheme_of(path) in S3 else {}
    endpoint = given.get("endpoint_url") or given.get("endpoint") or os.environ.get(ENDPOINT, "")
    if scheme_of(path) in S3 and endpoint.startswith("http://"):
        return {"AWS_ALLOW_HTTP": "true", **(options or {})}
    return dict(options) if options else None


def _arguments(path: str) -> dict[str, Any]:
    """Arguments of the store's client that say what `using` says."""
    if scheme_of(path) not in S3:
        return {}
    given = _of_s3(_options.get())
    found: dict[str, Any] = {_ARGUMENTS[key]: value for key, value in given.items() if key in _ARGUMENTS}
    if region := given.get("region") or given.get("default_region"):
        found["client_kwargs"] = {"region_name": region}
    return found


def _of_s3(options: Mapping[str, str] | None) -> dict[str, str]:
    """Options of delta-rs for S3 in lower case and without `aws_`, as it reads them."""
    return {key.lower().removeprefix("aws_"): value for key, value in (options or {}).items()}
