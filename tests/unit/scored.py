"""Pictures for tests of the score's table, blurred noise whose score follows from its blur; and a tiny network."""

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from calibration.evaluate.score_folds import MAGNIFICATIONS, pixel_size_m
from calibration.train.data import CROP, PER_SCENE, Samples
from calibration.train.scenes import KINDS
from engines.autofocus import condition

SCENES = 2 * len(KINDS)


def samples(scenes: int = SCENES) -> Samples:
    """Kinds and magnifications in turn, a scene twice blurred; each sixteenth picture is of nothing."""
    rng, rows = np.random.default_rng(1), range(scenes * PER_SCENE)
    scene = np.repeat(np.arange(scenes), PER_SCENE)
    blur = np.repeat(rng.uniform(0.5, 8.0, scenes * 2), PER_SCENE // 2)
    score = np.asarray(10.0 - blur, np.float32)
    nothing = np.arange(len(scene)) % 16 == 0
    return Samples(
        image=np.stack([_picture(float(blur[i]), rng) for i in rows]),
        condition=np.stack([condition(pixel_size_m(MAGNIFICATIONS[each % len(MAGNIFICATIONS)])) for each in scene]),
        score=np.where(nothing, np.float32(0.0), score),
        log_blur=np.log(blur).astype(np.float32),
        content=np.where(nothing, np.float32(0.0), np.float32(0.9)),
        defocus_h=(2.0 * blur).astype(np.float32),
        snr=np.where(nothing, np.float32(0.0), np.float32(2.0)),
        kind=np.where(nothing, len(KINDS), scene % len(KINDS)).astype(np.uint8),
    )


def _picture(blur_px: float, rng: np.random.Generator) -> np.ndarray:
    seen = cv2.GaussianBlur(rng.standard_normal((CROP, CROP)).astype(np.float32), (0, 0), blur_px)
    return np.asarray(np.clip(110.0 + 40.0 * seen, 0, 255), np.uint8)


class Slight(nn.Module):
    """Sees the picture's spread alone."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(1, 4)

    def forward(self, image: Tensor, condition: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        out = self.head(torch.log(image.float().std(dim=(1, 2, 3)) + 1.0)[:, None])
        return 10.0 * torch.sigmoid(out[:, 0]), out[:, 1], torch.exp(out[:, 2]), torch.sigmoid(out[:, 3])
