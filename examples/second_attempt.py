"""Your own environment, learnt from second attempts (ERL): lamps in a ring, where each switch flips two."""

import sys
from functools import partial
from itertools import product

import etude
from etude.tasks.check import NoText
from etude.types import Message, Task, Verdict


class Lamps:
    def __init__(self, on: tuple[bool, ...], seed: int = 0) -> None:  # `seed`: for environments with chance
        self.on, self.said = list(on), ""

    def observe(self) -> str:
        return " ".join("on" if on else "off" for on in self.on)

    def act(self, text: str) -> tuple[str, Verdict | None]:
        switch = next((int(c) - 1 for c in text if c in "12345"[: len(self.on)]), 0)
        for lamp in (switch, (switch + 1) % len(self.on)):
            self.on[lamp] = not self.on[lamp]
        self.said += f"Switch {switch + 1}: {self.observe()}. "
        over = all(self.on) or self.said.count("Switch") == 6
        return self.observe(), Verdict(float(all(self.on)), all(self.on), self.said) if over else None


ask = (Message("user", "Turn on all lamps in 6 moves. K flips lamp K and the next. Answer one number."),)
rows = [on for n in (3, 4, 5) for on in product((True, False), repeat=n) if on.count(False) in (2, 4)]
tasks = [Task(ask, NoText("lamps"), environment=partial(Lamps, r), meta={"environment_key": r}) for r in rows]

if __name__ == "__main__":  # python examples/second_attempt.py [MODEL [STEPS]]
    model, steps = [*sys.argv[1:], *["smollm2", "40"][len(sys.argv) - 1 :]]
    settings = {"run.max_tokens": 8, "rollout.longest": 48, "run.eval_problems": 5}
    run = etude.train("erl", model, tasks, int(steps), settings=settings, out="runs/lamps")
    print(run.after, {k: v for k, v in run.metrics[-1].items() if "attempts/" in k})
