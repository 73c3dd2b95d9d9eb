"""Named errors. Each message is one line, "what was found: what to do". The command line prints it without a stack trace.

Exit codes: 0 done, 1 failed, 2 usage or configuration, 3 refused by the quality gate.
"""

from tgq.messages import presentable


class TgqError(Exception):
    """Base of all errors that a user can act on.

    Args:
        found: what was found, with the offending value and its location.
        do: what to do, in the imperative.

    Both are kept without control characters and passwords, because the values in them come from outside.
    """

    exit_code = 1

    def __init__(self, found: str, do: str = ""):
        self.found, self.do = presentable(found), presentable(do)
        super().__init__(f"{self.found}: {self.do}" if do else self.found)

    # pickled in Spark workers; the default would rebuild the error from its message and lose `do`
    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (self.found, self.do)


class ConfigError(TgqError):
    """An unknown key, a wrong type or an impossible combination in the settings."""

    exit_code = 2


class UsageError(TgqError):
    """A command or call with invalid arguments."""

    exit_code = 2


class MachineError(TgqError):
    """Java, the Delta JARs, memory or another requirement on the machine is missing or wrong."""


class DeviceError(TgqError):
    """The configured GPU is absent or does not fit the model."""


class ModelError(TgqError):
    """An encoder, tower or package is missing, incomplete, altered, or does not fit its configuration."""


class SourceError(TgqError):
    """The catalog cannot be read as configured."""


class EnrichmentError(TgqError):
    """A language model that is to refine texts or to generate attributes does not answer."""


class WarehouseError(TgqError):
    """The warehouse is missing, not writable, or of another version of tgq."""


class StoreError(TgqError):
    """An object store does not answer, refuses the credentials or fails, or its client is not installed."""


class LockedError(TgqError):
    """Another process has locked the warehouse."""


class ValidationError(TgqError):
    """A critical expectation on the data failed. Later steps did not run."""


class TrackingError(TgqError):
    """MLflow does not answer, or a call failed."""


class AccountingError(TgqError):
    """The number of source rows is not embedded + unchanged + quarantined."""


class EvidenceError(TgqError):
    """There are too few validation queries to compare two encoders."""


class GateError(TgqError):
    """The quality gate refused to publish a run, or a candidate is worse than the champion."""

    exit_code = 3
