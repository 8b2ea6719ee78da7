"""Why a fit cannot be made: what, where, which value, what to do."""


class FitError(Exception):
    """Frames or geometry that no fit can work with."""
