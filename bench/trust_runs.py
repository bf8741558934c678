"""Can a comparison be trusted end to end? Real runs of a tiny model, many times over.

    OMP_NUM_THREADS=1 python bench/trust_runs.py [--comparisons 40] [--processes 2]

A/A: the same recipe entered twice, each arm with 3 seeds of its own, must be called different at most as often as
stated (5 %). Planted handicaps with 5 seeds: half the learning rate, and a wrong sign on 20 % of the advantages, must be
found worse as often as the planned power says. Writes bench/results/trust_runs.json.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from contestants import card, write_result

STEPS, LR = 20, 2e-3


def flipped(share: float, credit: Any) -> Any:
    """Credit with the wrong sign on a keyed share of its signals."""

    def wrong(groups: Sequence[Any], context: Any) -> list[Any]:
        signals = credit(groups, context)
        draws = context.rng("handicap").random(len(signals))
        return [
            replace(s, advantage=-s.advantage) if draw < share else s
            for s, draw in zip(signals, draws, strict=True)
        ]

    return wrong


def accuracies(job: tuple[str, int, str]) -> list[float]:
    """Held-out accuracy per problem after one run. `variant`: plain | half | flipped."""
    import torch

    from etude.tasks import load
    from etude.train.config import Budget, Plan
    from etude.train.loop import train
    from etude.train.setup import start

    torch.set_num_threads(1)
    variant, seed, place = job
    changes = {
        "run.precision": "fp32",
        "run.max_tokens": "2",
        "run.tasks_per_step": "8",
        "run.eval_problems": "40",
        "run.eval_samples": "4",
        "run.checkpoint_every": "100000",
        "update.lr": str(LR / 2 if variant == "half" else LR),
    }
    tasks = f"{place}/words.jsonl"
    plan = Plan("grpo", f"{place}/model", tasks, Budget(STEPS, "steps"), seed, changes)
    with tempfile.TemporaryDirectory() as where:
        run = start(plan, Path(where) / "run", load(tasks))
        if variant == "flipped":
            run.stages["credit"] = flipped(0.2, run.stages["credit"])
        train(run)
        result = run.evaluate("last")
        run.close()
    return [correct / samples for _, correct, samples in sorted(result.per_problem)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--comparisons", type=int, default=40)
    parser.add_argument("--planted", type=int, default=20, help="comparisons per handicap")
    parser.add_argument("--processes", type=int, default=2)
    a = parser.parse_args()
    from etude.evaluate.paired import compare
    from etude.policy.tiny import tiny_directory

    with tempfile.TemporaryDirectory() as place:
        tiny_directory(Path(place) / "model", "abcd", layers=2, width=64, heads=4, kv_heads=2, seed=1)
        words = ("".join(w) for w in itertools.product("abcd", repeat=4))
        Path(place, "words.jsonl").write_text(
            "\n".join(json.dumps({"prompt": w, "answer": w[0]}) for w in words)
        )
        number = itertools.count()
        jobs = [("plain", next(number), place) for _ in range(6 * a.comparisons)]
        jobs += [("plain", next(number), place) for _ in range(5 * a.planted)]
        jobs += [(v, next(number), place) for v in ("half", "flipped") for _ in range(5 * a.planted)]
        with multiprocessing.get_context("spawn").Pool(a.processes) as pool:
            table = np.array(list(_shown(pool.imap(accuracies, jobs), len(jobs))))
    same, rest = table[: 6 * a.comparisons], table[6 * a.comparisons :]
    plain, half, flip = (rest[i * 5 * a.planted : (i + 1) * 5 * a.planted] for i in range(3))

    def found(first: np.ndarray, second: np.ndarray, seeds: int) -> list[dict[str, Any]]:
        pairs = zip(
            first.reshape(-1, seeds, first.shape[1]), second.reshape(-1, seeds, second.shape[1]), strict=True
        )
        return [compare({"a": x, "b": y}).differences[0].to_dict() for x, y in pairs]

    arms = same.reshape(a.comparisons, 2, 3, -1)
    aa = found(arms[:, 0].reshape(-1, same.shape[1]), arms[:, 1].reshape(-1, same.shape[1]), 3)
    result = {
        "what": "comparisons of real training runs of a tiny model",
        "command": " ".join(["python", *sys.argv]),
        "aa": _facts(aa),
        "half_rate": _facts(found(plain, half, 5)),
        "wrong_sign": _facts(found(plain, flip, 5)),
        "seed_sd_points": float(100 * same.mean(1).std(ddof=1)),
        "mean": {"plain": float(plain.mean()), "half": float(half.mean()), "flipped": float(flip.mean())},
        "card": card(),
    }
    write_result("trust_runs", result)
    print(json.dumps({k: v for k, v in result.items() if k != "card"}, indent=1))


def _facts(differences: list[dict[str, Any]]) -> dict[str, Any]:
    called = [d for d in differences if d["adjusted"] <= 0.05]
    return {
        "comparisons": len(differences),
        "called_different": len(called),
        "called_worse": sum(d["effect"] < 0 for d in called),
        "share": len(called) / len(differences),
        "mean_effect": float(np.mean([d["effect"] for d in differences])),
        "mean_error": float(np.mean([d["error"] for d in differences])),
        "p": [d["p"] for d in differences],
    }


def _shown(results: Any, total: int) -> Any:
    for i, one in enumerate(results, 1):
        if i % 20 == 0:
            print(f"{i} of {total} runs", flush=True)
        yield one


if __name__ == "__main__":
    main()
