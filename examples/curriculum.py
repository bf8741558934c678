"""Your own tasks at several levels, and a curriculum that moves to where the model learns most (SEC)."""

import sys
from itertools import product

import etude
from etude.tasks.check import Number


def tasks() -> list[etude.Task]:
    """Two kinds at three levels: what an arm of the curriculum is stands in `kind` and `difficulty`."""
    found = []
    for level, top in enumerate((9, 30, 99), 1):
        for a, b in product(range(top // 3, top + 1, max(1, top // 15)), repeat=2):
            for kind, sign, answer in (("sum", "+", a + b), ("difference", "-", a - b)):
                prompt = f"{a} {sign} {b} = ? Answer with the number."
                found.append(etude.Task(prompt, Number(str(answer)), kind, float(level), answer=str(answer)))
    return found


if __name__ == "__main__":  # python examples/curriculum.py [MODEL [STEPS]]
    model, steps = [*sys.argv[1:], *["smollm2", "40"][len(sys.argv) - 1 :]]
    settings = {"run.max_tokens": 12, "curriculum.sec_tau": 0.3}
    run = etude.train("grpo+sec", model, tasks(), int(steps), settings=settings, out="runs/curriculum")
    for step in run.metrics[:: max(1, int(steps) // 5)]:
        print(step["step"], {arm: round(p, 2) for arm, p in step["curriculum"].items()})
    print(run.after)
