"""One training: AdamW over one cycle of the learning rate, saved after each epoch, taken up where it stopped."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

WEIGHT_DECAY = 1e-3
LARGEST_GRADIENT = 5.0  # a likelihood with a free scale throws now and then


def short_multiplies() -> bool:
    """Can this processor multiply in bfloat16 by itself? Where it cannot, doing so takes fourteen times as long."""
    return bool(torch.cpu.get_capabilities().get("avx512_bf16", False))


class Cycle:
    """Network, optimiser and schedule, which are saved and restored together. plan: what a checkpoint must match."""

    def __init__(self, network: nn.Module, plan: dict[str, Any], *, steps: int, learning_rate: float) -> None:
        self.network, self.plan, self.epoch = network, plan, 0
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks it
        self.optimiser = torch.optim.AdamW(network.parameters(), lr=learning_rate, weight_decay=WEIGHT_DECAY)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(self.optimiser, learning_rate, total_steps=max(steps, 2))

    def step(self, loss: Tensor) -> float:
        """One step down."""
        self.optimiser.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), LARGEST_GRADIENT)
        self.optimiser.step()
        self.schedule.step()
        return float(loss.detach())

    def save(self, path: Path) -> None:
        partial = path.with_suffix(".partial")
        state = {
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "schedule": self.schedule.state_dict(),
        }
        torch.save({"plan": self.plan, "epoch": self.epoch} | state, partial)
        partial.replace(path)

    def resume(self, path: Path) -> None:
        """Take up a checkpoint of the same plan; another plan's, or none, is passed over."""
        if not path.exists():
            return
        stored: dict[str, Any] = torch.load(path, weights_only=True)
        if stored["plan"] != self.plan:
            return
        self.epoch = int(stored["epoch"])
        self.network.load_state_dict(stored["network"])
        self.optimiser.load_state_dict(stored["optimiser"])
        self.schedule.load_state_dict(stored["schedule"])
