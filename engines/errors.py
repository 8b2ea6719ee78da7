"""What can go wrong between a model package and a reading, by cause. The house maps these at its border."""


class ModelError(Exception):
    """Any failure of a package, a backend or an output; one sentence that says what, where and what to do."""


class PackageError(ModelError):
    """A model package that is missing, incomplete, edited, or not what its manifest says."""


class BackendMissingError(ModelError):
    """A backend was asked for by name and cannot serve here. Never answered with another backend."""


class InferenceError(ModelError):
    """A loaded model failed on a frame, or answered with numbers that are not finite."""
