"""A trained file becomes a model package: what all trainings say of themselves in the same way."""

import datetime
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from calibration.train.export import OPSET
from engines.manifest import MODEL_FILE, Manifest, Tensor, Training, digest, write
from engines.scene import CONDITION, NEUTRAL_ELECTRONS, NEUTRAL_PIXEL_M, NEUTRAL_VOLTAGE_V

Metrics = dict[str, dict[str, float]]  # data set or method -> figure -> value

IMAGE = Tensor(
    name="image",
    dtype="uint8",
    shape=(1, 1, "height", "width"),
    unit="grey level",
    meaning="the frame without its databar; height and width are multiples of 32",
)
SCENE = Tensor(  # what depth and defects are told beside the picture: engines/scene.py
    name="condition",
    dtype="float32",
    shape=(1, CONDITION),
    unit="1",
    meaning=(
        "mean / 255 and standard deviation / 255 of the whole frame, then log10(x / neutral) and 1, or two zeros "
        f"where unknown, of: pixel size ({NEUTRAL_PIXEL_M * 1e9:g} nm), primary electrons a pixel "
        f"({NEUTRAL_ELECTRONS:g}), accelerating voltage ({NEUTRAL_VOLTAGE_V:g} V)"
    ),
)


@dataclass(frozen=True)
class Described:
    """What of a package is known before it is trained."""

    task: str
    version: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    labels: dict[str, str]  # output -> definition of its label
    data: str

    @property
    def output_names(self) -> tuple[str, ...]:
        return tuple(tensor.name for tensor in self.outputs)

    def training(
        self,
        network: nn.Module,
        *,
        command: str,
        seed: int,
        samples: int,
        steps: int,
        start: str = "",
        learnt: float = 1.0,
    ) -> Training:
        """The record of a training that ends now."""
        return Training(
            data=self.data,
            labels=self.labels,
            seed=seed,
            command=command,
            date=datetime.datetime.now(datetime.UTC).replace(microsecond=0).isoformat(),
            samples=samples,
            steps=steps,
            start=start,
            learnt=learnt,
            parameters=sum(p.numel() for p in network.parameters()),
        )

    def write(self, package: Path, training: Training, metrics: Metrics) -> None:
        """The manifest of the model.onnx that stands in the package, beside it."""
        manifest = Manifest(
            format=1,
            name=self.task,
            task=self.task,
            version=self.version,
            sha256=digest((package / MODEL_FILE).read_bytes()),
            opset=OPSET,
            inputs=self.inputs,
            outputs=self.outputs,
            training=training,
            metrics=metrics,
        )
        write(package, manifest)
