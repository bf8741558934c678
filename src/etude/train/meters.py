"""What a run has spent, by use: seconds, tokens, FLOPs."""

from __future__ import annotations

import resource
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from etude.train.config import Plan
from etude.train.context import RunContext


class Metered(ABC):
    """The clocks and meters of a run."""

    plan: Plan
    context: RunContext
    times: dict[str, float]  # seconds by use, of the step in progress; "begin": when it began
    spent: dict[str, float]

    @property
    @abstractmethod
    def policies(self) -> list[Any]:
        """The models whose tokens and FLOPs are the run's."""

    def start_clock(self) -> None:
        """The first step begins now; what came before it is charged to nothing."""
        self.times.clear()
        self.times["begin"] = time.perf_counter()

    @contextmanager
    def clock(self, name: str) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        self.times[name] = self.times.get(name, 0.0) + time.perf_counter() - begin

    @contextmanager
    def uncharged(self) -> Iterator[None]:
        """What happens inside counts neither as time nor as tokens nor as FLOPs of the run."""
        times, begin = dict(self.times), time.perf_counter()
        meters = [policy.meter.state_dict() for policy in self.policies]
        try:
            yield
        finally:
            for policy, meter in zip(self.policies, meters, strict=True):
                policy.meter.load_state_dict(meter)
            self.times.clear()  # in place: the check runner holds it
            self.times.update(times)
            if "begin" in times:
                self.times["begin"] += time.perf_counter() - begin

    def charge(self, metrics: dict[str, Any]) -> None:
        """Charges the step in progress, writes what it took into its metrics, and advances the budget."""
        now = time.perf_counter()
        whole, self.times["begin"] = now - self.times.get("begin", now), now
        rollout, check, train = (self.times.pop(k, 0.0) for k in ("rollout", "check", "train"))
        self.spent["seconds"] += whole
        other = max(0.0, whole - rollout - train)
        split = {"rollout": rollout - check, "check": check, "train": train, "other": other}
        metrics |= {f"time/{k}": v for k, v in split.items()}
        tokens, flops = self.cost()
        generated = tokens["generated"] - self.spent["generated"]
        self.spent["generated"] = tokens["generated"]
        metrics |= {f"tokens/{k}": v for k, v in tokens.items()}
        metrics |= {
            "tokens_per_second": generated / rollout if rollout else 0.0,
            "flops": flops,
            "seconds": self.spent["seconds"],
            "rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }
        self.context.progress = self.plan.budget.progress(self.used())

    def used(self) -> dict[str, float]:
        """What the run has spent of each unit that a budget may have."""
        tokens, flops = self.cost()
        both = tokens["generated"] + tokens["trained"]
        return {"steps": self.context.step, "seconds": self.spent["seconds"], "tokens": both, "flops": flops}

    def spent_so_far(self) -> dict[str, Any]:
        """The same as an evaluation's card has it."""
        used = self.used()
        return {
            "step": used["steps"],
            "flops": used["flops"],
            "tokens": int(used["tokens"]),
            "seconds": used["seconds"],
        }

    def cost(self) -> tuple[dict[str, float], float]:
        """Tokens by use, and model FLOPs (2N a token forward, 6N a token trained), auxiliary models included."""
        meters = [p.meter for p in self.policies]
        names = ("generated", "prefilled", "scored", "trained")
        return {n: float(sum(getattr(m, n) for m in meters)) for n in names}, float(
            sum(m.flops for m in meters)
        )
