"""How the optimiser steps: the settings of the update stage."""

from __future__ import annotations

import math
from collections.abc import Set
from dataclasses import dataclass
from typing import Annotated

from etude.settings import Setting


@dataclass(frozen=True)
class Update:
    """How the optimiser (AdamW on fp32 master weights) steps."""

    lr: Annotated[float, Setting("learning rate", low=0, high=1)] = 1e-5
    passes: Annotated[int, Setting("times each batch is used", low=1, high=100)] = 1
    minibatches: Annotated[int, Setting("optimiser steps per pass", low=1, high=1024)] = 1
    warmup: Annotated[int, Setting("steps over which the rate rises from 0", "steps", low=0)] = 0
    decay: Annotated[str, Setting("rate over the run", choices=("constant", "linear", "cosine"))] = "constant"
    weight_decay: Annotated[float, Setting("AdamW's decoupled decay", low=0, high=1)] = 0.0
    beta1: Annotated[float, Setting("AdamW's first moment", low=0, high=0.99999)] = 0.9
    beta2: Annotated[float, Setting("AdamW's second moment", low=0, high=0.99999)] = 0.999
    max_norm: Annotated[float, Setting("gradient norm above which it is scaled down", low=0)] = 1.0
    head_lr: Annotated[float, Setting("learning rate of auxiliary heads", low=0, high=1)] = 1e-3

    def rate(self, step: int, progress: float) -> float:
        """The factor on the learning rates at `step` (from 0), `progress` in [0, 1] through the run."""
        if step < self.warmup:
            return (step + 1) / (self.warmup + 1)
        left = max(0.0, 1 - progress)
        return {"constant": 1.0, "linear": left, "cosine": 0.5 - 0.5 * math.cos(math.pi * left)}[self.decay]

    def moments(self, rows: Set[str]) -> str:
        """Which of AdamW's moments a step moves, and moves by, whose losses act on these weight rows. One set for all
        steps; a recipe whose steps differ in kind may name others."""
        return ""
