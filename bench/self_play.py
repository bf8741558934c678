"""Kuhn poker learnt by self-play: the laboratory's model first imitates legal moves, then plays against itself.

    python bench/self_play.py [STEPS [EVERY [LEARNING_RATE]]]      # prints how it plays before, during and after

Kuhn poker is small enough that its equilibrium is known: seat 0 loses 1/18 of a chip a game, and how much any way to play loses
to its best answer can be computed. Moves at random lose 0.458 chips a game."""

from __future__ import annotations

import sys
from pathlib import Path

import etude
from etude.evaluate.games import against, kuhn_play
from etude.train import loop, setup
from etude.train.config import Budget, Plan

PLACE = Path("runs/self-play")
SMALL = {"run.max_tokens": 16, "run.eval_problems": 50, "run.eval_samples": 2}


def main(steps: int = 30, every: int = 10, lr: float = 5e-5) -> None:
    # 1. The model has never seen cards. It imitates legal moves, each equally likely, so that it can play at all.
    rules = etude.train(
        "sft",
        "lab",
        "kuhn_poker:shows=random",
        "60-steps",
        settings={**SMALL, "update.lr": 1e-3, "run.tasks_per_step": 32},
        out=PLACE / "rules",
        overwrite=True,
        progress=False,
    )
    # 2. Both seats are the policy. Every few steps its play is measured.
    plan = Plan(
        "spiral",
        str(rules.model),
        "kuhn_poker",
        Budget(steps, "steps"),
        0,
        {**SMALL, "update.lr": lr, "run.tasks_per_step": 8},
    )
    run = setup.start(plan, PLACE / "games", overwrite=True)

    def measure(step: int) -> None:
        with run.uncharged():
            play = run.loop.run(kuhn_play(run.generator, run.check_runner, run.holdout[0], 100))
            scores = [
                run.loop.run(against(name, run.generator, run.check_runner, run.holdout))
                for name in ("random", "equilibrium")
            ]
        bets = " ".join(f"{card}{history or '-'}:{p:.2f}" for (card, history), p in play.strategy.items())
        print(
            f"step {step:3}  exploitability {play.exploitability:.3f}  value {play.value:+.3f}  "
            + "  ".join(
                f"{s.opponent} {100 * s.won.mean:.0f} % [{100 * s.won.low:.0f}, {100 * s.won.high:.0f}] "
                f"{s.mean_return[0]:+.2f} [{s.mean_return[1]:+.2f}, {s.mean_return[2]:+.2f}]"
                for s in scores
            )
            + f"  {bets}",
            flush=True,
        )

    run.on_step = lambda step, metrics: measure(step) if step % every == 0 else None
    try:
        measure(0)
        loop.train(run)
    finally:
        run.close()


if __name__ == "__main__":
    main(*(kind(text) for kind, text in zip((int, int, float), sys.argv[1:], strict=False)))
