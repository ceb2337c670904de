"""The errors a person can meet: each has an exit code and one sentence that says what is wrong and what to do.

`docs/exit-codes.md` lists them. Command lines print `str(error)` and exit with `error.exit_code`; no traceback.
"""


class EmoflError(Exception):
    """Base of every error that is meant for a person."""

    exit_code = 1


class ConfigError(EmoflError):
    """A setting is unknown, malformed or contradicts another."""

    exit_code = 2


class DataError(EmoflError):
    """Face data cannot be used: missing files, wrong columns, no face of a known emotion."""

    exit_code = 3


class PrivacyError(EmoflError):
    """The privacy budget is spent, or a ledger cannot be trusted."""

    exit_code = 4


class IntegrityError(EmoflError):
    """A published model's hash, signature or chain does not hold."""

    exit_code = 5


class ModelError(EmoflError):
    """A model is unknown, mixes examples, or does not export faithfully."""

    exit_code = 6


class DeviceError(EmoflError):
    """No camera, no display, or a source or output that cannot be opened."""

    exit_code = 7


class RunError(EmoflError):
    """A run cannot start, resume or finish."""

    exit_code = 8


class Stopped(RunError):
    """Somebody asked the run to stop; what the last checkpoint holds is kept."""


class DependencyError(EmoflError):
    """A library is missing or does not fit the others."""

    exit_code = 9


class ReplyError(EmoflError):
    """A device's reply is malformed. The server logs it and leaves the reply out; it never ends a run."""

    exit_code = 10
