"""Named errors. Each says in one line what was found and what to do; the command line prints that line, never a stack trace.

Exit codes, for a scheduler: 0 done, 1 failed, 2 usage or configuration, 3 the quality gate said no.
"""


class TgqError(Exception):
    """A failure that its user can understand and act on.

    Args:
        found: what was found, with the offending value and where it stood.
        do: what to do next, in the imperative.
    """

    exit_code = 1

    def __init__(self, found: str, do: str = ""):
        self.found, self.do = found, do
        super().__init__(f"{found}: {do}" if do else found)

    # the default would rebuild from the joined message and lose `do` on its way from a worker
    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (self.found, self.do)


class ConfigError(TgqError):
    """An unknown key, a wrong type or an impossible combination in the settings."""

    exit_code = 2


class UsageError(TgqError):
    """A command line that cannot be carried out as it was typed."""

    exit_code = 2


class MachineError(TgqError):
    """Java, the Delta JARs, memory or another part of the machine is missing or wrong."""


class DeviceError(TgqError):
    """A GPU was asked for and is absent, or does not fit the model."""


class ModelError(TgqError):
    """A model folder or package is missing, incomplete, altered, or of another configuration."""


class SourceError(TgqError):
    """The catalog cannot be read as the configuration describes it."""


class WarehouseError(TgqError):
    """The warehouse cannot be written, or holds what this version cannot use."""


class LockedError(TgqError):
    """Another night holds the warehouse."""


class ValidationError(TgqError):
    """A critical expectation on the data failed; nothing downstream was touched."""


class TrackingError(TgqError):
    """MLflow does not answer, or refuses."""


class AccountingError(TgqError):
    """Rows in do not equal embedded + unchanged + quarantined."""


class EvidenceError(TgqError):
    """Too few judged queries to compare two encoders by."""


class GateError(TgqError):
    """The quality gate refused to publish this night, or a candidate is worse than the champion."""

    exit_code = 3
