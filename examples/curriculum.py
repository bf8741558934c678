"""Your own tasks at several levels, and a curriculum that moves to where the model learns most (SEC)."""

import sys
from itertools import product

from etude.tasks import TaskSet
from etude.tasks.check import Number
from etude.train import config, loop, setup
from etude.types import Message, Task


def tasks() -> list[Task]:
    """Two kinds at three levels: what an arm of the curriculum is stands in `kind` and `difficulty`."""
    found = []
    for level, top in enumerate((9, 30, 99), 1):
        for a, b in product(range(top // 3, top + 1, max(1, top // 15)), repeat=2):
            for kind, sign, answer in (("sum", "+", a + b), ("difference", "-", a - b)):
                prompt = (Message("user", f"{a} {sign} {b} = ? Answer with the number."),)
                found.append(Task(prompt, Number(str(answer)), kind, float(level), answer=str(answer)))
    return found


if __name__ == "__main__":  # python examples/curriculum.py [MODEL [STEPS]]
    model, steps = [*sys.argv[1:], *["smollm2", "40"][len(sys.argv) - 1 :]]
    changes = {"run.max_tokens": "12", "curriculum.sec_tau": "0.3"}
    plan = config.Plan("grpo+sec", model, "sums", config.Budget(int(steps), "steps"), 0, changes)
    run = setup.start(plan, "runs/curriculum", TaskSet.of(tasks()))
    loop.train(run)
    for when in run.directory.metrics()[:: max(1, int(steps) // 5)]:
        print(when["step"], {arm: round(p, 2) for arm, p in when["curriculum"].items()})
    print(run.evaluate("last"))
