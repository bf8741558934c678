"""`etude` with a clock beside it, for bench/startup.py: notes when each part of starting up was done, and ends the
program at the first sampled token. A part's name stands at its end; what lies between two named parts is "other"."""

from __future__ import annotations

import os
import sys
import time

MARKS: list[str] = []


def mark(name: str) -> None:
    MARKS.append(f"{name} {time.time()}")


def main() -> None:
    from etude.launch import environment

    if "ETUDE_LAUNCHED" not in os.environ:
        os.execve(sys.executable, [sys.executable, *sys.argv], environment())
    mark("two interpreters")
    import etude.cli

    mark("import of the command line")
    import torch

    mark("import of torch")
    import etude.train.setup as setup

    mark("import of the run")
    watch(setup, "resolve", "recipe")
    watch(setup, "_load_tasks", "tasks")
    watch(setup, "hold_out", "held-out problems")
    watch(setup, "missing", "check of needs")
    watch(setup, "card", "card")
    import etude.models.load as load

    mark("import of the policy")
    for name in ("locate", "read"):
        watch(load, name, "finding the model" if name == "locate" else "tokenizer")
    watch(load.Weights, "load", "weights read")
    watch(load.Weights, "__init__", "weights allocated")
    import etude.sampling.scheduler as pump

    watch(pump.Scheduler, "__init__", "import and making of the sampler")
    watch(pump.Scheduler, "sample", "prompts rendered (template)", before=True)
    draw = pump.Scheduler._draw

    def first(*args: object) -> None:
        draw(*args)
        mark("prefill and first token")
        with open(os.environ["STARTUP_MARKS"], "w") as file:
            file.write("\n".join(MARKS))
        os._exit(0)

    pump.Scheduler._draw = first
    del torch
    sys.exit(etude.cli.run(sys.argv[1:]))


def watch(owner: object, name: str, what: str, before: bool = False) -> None:
    """Marks the time before (then "other") and after each call; with `before`, only that before it, as `what`."""
    function = getattr(owner, name)

    def watched(*args: object, **kwargs: object) -> object:
        mark(what if before else "other")
        try:
            return function(*args, **kwargs)
        finally:
            if not before:
                mark(what)

    setattr(owner, name, watched)


if __name__ == "__main__":
    main()
