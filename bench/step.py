"""One GRPO step of etude and of TRL's GRPOTrainer, in one run, taking turns.

    python bench/step.py [--rounds 3] [--tasks 8] [--samples 8] [--tokens 64]

The same model (the embedded SmolLM2-135M-Instruct), rule of reward, batch, optimiser (AdamW) and sampling settings; TRL's
steps have the tasks of etude's steps that train on every group. TRL accumulates gradients where the whole batch at once would not fit into memory. Each
contestant's first two steps, which touch memory for the first time, are left out; how long they took is written down. TRL
trains on every group. etude leaves out groups whose rewards are all equal (their advantage is 0 and so is their
gradient), and takes turns with itself training on every group as well: `ratio` compares equal work, every group
trained; `ratio_as_used` compares etude as a user gets it. Writes bench/results/NAME.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from contestants import Contestant, middle, ours, shown, write_result
from peers import peer_python
from work import Peak, forward_flops, read_shape, training_flops

from etude.models.config import ModelConfig
from etude.models.embedded import directory

WARM_UP = 2
RATE = 1e-9  # a step costs the same at any; at this one all go on sampling from one policy, so lengths agree
TASKS = "chain_sum:max_terms=2,max_digits=2"
Turns = dict[str, list[dict[str, Any]]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="steps of each contestant after the first")
    parser.add_argument("--tasks", type=int, default=8)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=64, help="longest completion")
    parser.add_argument(
        "--peer-rows", type=int, help="completions TRL trains on at once; default 4096 / TOKENS"
    )
    parser.add_argument(
        "--name", help="of the file in bench/results; default step or step-TASKSxSAMPLESxTOKENS"
    )
    a = parser.parse_args()
    usual = (a.tasks, a.samples, a.tokens) == (8, 8, 64)
    name = a.name or ("step" if usual else f"step-{a.tasks}x{a.samples}x{a.tokens}")
    with tempfile.TemporaryDirectory() as place:
        job = {**vars(a), "place": place, "model": str(directory()), "spec": TASKS, "lr": RATE}
        steps = [*range(WARM_UP), *(WARM_UP + 2 * r + r % 2 for r in range(a.rounds + 1))]  # on every group
        job["prompts"] = write_prompts(
            Path(place), TASKS, [step * a.tasks + i for step in steps for i in range(a.tasks)]
        )
        peak = Peak(directory())
        mine = ours("step_etude.py", job)
        theirs = Contestant("TRL 1.16", peer_python("trl"), "step_trl.py", job)
        first: dict[str, list[float]] = {"etude": [], "TRL 1.16": []}
        for number in range(WARM_UP):
            for who, found in (("etude", mine.turn(every_group=True)), ("TRL 1.16", theirs.turn())):
                first[who].append(shown(f"{who}, warm-up {number + 1}", found)["seconds"])
        turns = _rounds(a.rounds, mine, theirs, peak)
        for contestant in (mine, theirs):
            contestant.end()
    result = _summary(a, turns, read_shape(directory()), peak.end())
    result["first_seconds"] = first
    write_result(name, result)


def write_prompts(place: Path, spec: str, which: Iterable[int]) -> str:
    """These of the tasks that a run of seed 0 draws, for a peer that cannot draw them itself."""
    from etude.tasks import load
    from etude.types import Request

    drawn = [load(spec).draw(Request(), i, 0) for i in which]
    path = place / "prompts.json"
    path.write_text(json.dumps([{"prompt": t.prompt[0].content, "answer": t.answer} for t in drawn]))
    return str(path)


def _rounds(rounds: int, mine: Contestant, theirs: Contestant, peak: Peak) -> Turns:
    turns: Turns = {"etude": [], "etude, as used": [], "TRL 1.16": []}
    for number in range(rounds):
        print(f"round {number + 1} of {rounds}", flush=True)
        order = list(turns) if number % 2 == 0 else list(turns)[::-1]
        for name in order:
            if name == "TRL 1.16":
                found = theirs.turn()
            else:
                peak.turn()
                found = mine.turn(every_group=name == "etude")
            turns[name].append(shown(name, found))
    return turns


def _gflops(shape: ModelConfig, t: dict[str, Any], counted: bool) -> float:
    """The rate of a step's useful work; `counted`: less what was replayed from sampling."""
    replayed = t.get("replayed", 0.0) / max(1.0, t.get("passes", 0.0)) if counted else 0.0
    flops = forward_flops(shape, t["prompt"], t["tokens"], t["samples"])
    prompt, tokens, samples = (t[f"trained_{what}"] for what in ("prompt", "tokens", "samples"))
    return (flops + training_flops(shape, prompt, tokens, samples, replayed)) / t["seconds"] / 1e9


def _summary(a: argparse.Namespace, turns: Turns, shape: ModelConfig, peak: dict[str, Any]) -> dict[str, Any]:
    def of(name: str) -> dict[str, Any]:
        mine = turns[name]
        rate, full = (
            statistics.median(_gflops(shape, t, counted) for t in mine) for counted in (True, False)
        )
        return {
            **middle(mine),
            "mean_length": statistics.mean(t["tokens"] / (a.tasks * a.samples) for t in mine),
            "trained_share": statistics.mean(t["trained_tokens"] / t["tokens"] for t in mine),
            "gflops": rate,
            "share_of_peak": rate / peak["gflops"],
            "share_if_recomputed": full / peak["gflops"],
        }

    every, best, trl = (of(name) for name in turns)
    return {
        "what": f"one GRPO step, {a.tasks} tasks x {a.samples} samples, up to {a.tokens} new tokens",
        "rounds": a.rounds,
        "etude": every,
        "etude_as_used": best,
        "peer": {"name": "TRL 1.16 GRPOTrainer", **trl},
        "ratio": trl["seconds"] / every["seconds"],
        "ratio_as_used": trl["seconds"] / best["seconds"],
        "memory_ratio": max(best["peak_mb"], every["peak_mb"]) / trl["peak_mb"],
        "peak": peak,
    }


if __name__ == "__main__":
    main()
