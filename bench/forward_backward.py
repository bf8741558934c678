"""Forward and backward of completions: etude packs them, transformers pads them. In one run, taking turns.

    python bench/forward_backward.py [--rounds 3] [--tasks 8] [--samples 8] [--tokens 64]

The completions are sampled from the model once and given to all. The loss is the same: the sum over completion tokens
of -advantage x log-probability, divided by their number, with advantages of 1 and -1; losses and gradient norms must
agree, or the bench fails. The peer is transformers' own model and cross-entropy in PyTorch, padded as TRL pads (prompts
left, completions right, logits of the completion only), in pure bfloat16 and in float32 under bfloat16 autocast: the
faster one counts. Writes bench/results/forward_backward.json.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
from pathlib import Path
from typing import Any

from contestants import Contestant, middle, ours, shown, write_result
from peers import peer_python
from work import Peak, read_shape, training_flops

from etude.models.embedded import directory

VARIANTS = {"bf16": "transformers, bf16", "autocast": "transformers, fp32 under autocast"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="with each peer")
    parser.add_argument("--tasks", type=int, default=8)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=64, help="longest completion")
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        job = {**vars(a), "model": str(directory()), "data": str(Path(place) / "completions.json")}
        mine = ours("forward_backward_etude.py", job)  # samples the completions
        peak = Peak(directory())
        turns: dict[str, list[Any]] = {"etude": [], **{name: [] for name in VARIANTS.values()}}
        for kind, name in VARIANTS.items():  # one peer at a time: two would not fit into 24 GB
            script = "forward_backward_transformers.py"
            other = Contestant(name, peer_python("trl"), script, {**job, "kind": kind})
            pair = {"etude": mine, name: other}
            for number in range(a.rounds + 1):
                print(f"round {number} of {a.rounds}" if number else "first passes, not counted", flush=True)
                peak.turn()
                for who in list(pair) if number % 2 else list(pair)[::-1]:
                    found = shown(who, pair[who].turn())
                    if number:
                        turns[who].append(found)
            other.end()
        mine.end()
        sizes = json.loads(Path(job["data"]).read_text())
    _must_agree(turns)
    write_result("forward_backward", _summary(a, turns, sizes, peak.end()))


def _must_agree(turns: dict[str, list[Any]]) -> None:
    """The same loss and gradient norm, as far as bfloat16 goes (its own noise is 0.02-0.07 of a gradient)."""
    for what, allowed in (("loss", 0.02), ("grad_norm", 0.1)):
        found = {name: statistics.median(t[what] for t in mine) for name, mine in turns.items()}
        if not all(math.isclose(v, found["etude"], rel_tol=allowed, abs_tol=0.002) for v in found.values()):
            raise SystemExit(f"the contestants did not compute the same {what}: {found}")


def _summary(
    a: argparse.Namespace, turns: dict[str, list[Any]], data: dict[str, Any], peak: dict[str, Any]
) -> dict[str, Any]:
    completion = sum(len(c) for c in data["completions"])
    prompt = sum(len(p) for p in {tuple(p) for p in data["prompts"]})
    flops = training_flops(read_shape(directory()), prompt, completion, len(data["completions"]))

    def of(name: str) -> dict[str, Any]:
        found = middle(turns[name])
        facts = {what: statistics.median(t[what] for t in turns[name]) for what in ("loss", "grad_norm")}
        share = flops / found["seconds"] / 1e9 / peak["gflops"]
        return {"name": name, **found, **facts, "share_of_peak": share}

    best, *peers = (of(name) for name in turns)
    peer = min(peers, key=lambda found: found["seconds"])
    return {
        "what": f"forward and backward of {a.tasks} x {a.samples} completions, {completion} tokens, "
        f"{prompt} prompt tokens",
        "rounds": a.rounds,
        "etude": best,
        "peer": peer,
        "peers": peers,
        "ratio": peer["seconds"] / best["seconds"],
        "memory_ratio": best["peak_mb"] / peer["peak_mb"],
        "peak": peak,
    }


if __name__ == "__main__":
    main()
