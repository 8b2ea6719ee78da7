"""How a sweep can end without a certificate. Each message says what, where, which value, and what to do."""


class SweepError(Exception):
    """No certificate: the start settings are restored before it leaves the sweep."""


class RefusedError(SweepError):
    """Nobody could vouch for this microscope on this specimen; the same sweep again would end the same way."""


class InterruptedSweepError(SweepError):
    """Stopped on the way: what was measured is kept, and the same sweep goes on from there."""


class OtherSweepError(SweepError):
    """The work folder holds the frames of another sweep."""
