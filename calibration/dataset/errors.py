"""What can go wrong with a dataset, each in one sentence: what, where, which value, what to do."""


class DatasetError(Exception):
    """A dataset cannot be made, continued or read."""


class OrderError(DatasetError):
    """What was asked for cannot be drawn by anybody."""
