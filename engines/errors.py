"""What can go wrong between a model package and a reading, by cause. The house maps these at its border."""


class ModelError(Exception):
    """Any failure of a package, a backend or an output; one sentence that says what, where and what to do."""


class PackageError(ModelError):
    """A model package that is missing, incomplete, edited, or not what its manifest says."""


class BackendMissingError(ModelError):
    """A backend was asked for by name and cannot serve here. Never answered with another backend."""


class BuildError(ModelError):
    """A model could not be made into an engine; nothing that serves was touched."""


class CacheError(ModelError):
    """The folder of built engines cannot be used: unwritable, full, or open to other people's files."""


class PlanError(ModelError):
    """A built engine that the run-time here refuses: truncated, of another version or device, or of other tensors."""


class CudaError(ModelError):
    """A call to the NVIDIA driver failed."""

    def __init__(self, call: str, code: int, words: str) -> None:
        super().__init__(f"{call}: {words} (CUDA error {code})")
        self.code = code

    @property
    def lost(self) -> bool:
        """No later call of this process can succeed: only a new process gets the device back."""
        return self.code in STICKY


STICKY = frozenset(  # the driver's documentation: "leaves the process in an inconsistent state", or the device is gone
    {4, 46, 100, 101, 201, 214, 220, 226, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719, 721, 802, 911, 999}
)


class InferenceError(ModelError):
    """A loaded model failed on a frame, or answered with numbers that are not finite."""


class DeviceLostError(InferenceError):
    """The GPU is gone or its context is broken: nothing but a new process helps."""
