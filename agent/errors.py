"""Errors by cause, converted at the border. Each message says what, where, which value, and what to do."""


class BeamsideError(Exception):
    """Anything this program reports in one sentence instead of a traceback."""

    exit_code = 1


class ConfigurationError(BeamsideError):
    """The configuration cannot work as written; systemd does not restart on it (sysexits EX_CONFIG)."""

    exit_code = 78


class UsageError(BeamsideError):
    """The command was asked for something it does not offer."""

    exit_code = 2


class MalformedFrameError(BeamsideError):
    """A frame message that cannot be read. `reason` is one of the books' words."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason  # parts, header, htype, dtype, shape, size
        self.detail = detail


class RequestError(BeamsideError):
    """A request on the command socket that is answered with ok = false."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class ImageError(BeamsideError):
    """A file that is not an image, or not one that can be read."""


class EngineError(BeamsideError):
    """A model could not be loaded, or answered with something that is not a reading."""


class JournalError(BeamsideError):
    """The journal cannot be opened or written."""
