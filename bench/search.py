"""Search keeps the sampler as full as plain sampling does: seconds a generated token of methods of inference over those of
`etude eval -k 16`, on the same problems of the embedded model.

    python bench/search.py [--model smollm2] [--problems 64] [--tokens 64] [--repeat 3]

The claim is at most 1.3 for 64 problems x 16 samples. What is compared alternates within each repetition, so that a machine
that gets slower does so for both; the median over repetitions is printed with all of them.
"""

from __future__ import annotations

import argparse
import statistics
import time

from contestants import shown, write_result

from etude import tasks as sources
from etude.evaluate.inference import played
from etude.evaluate.run import attempt, hold_out
from etude.event_loop import run as run_coroutine
from etude.models.policy import Policy
from etude.rollout.conversation import Generator
from etude.rollout.group_rollout import checks_in
from etude.sampling.engine import sampler_for
from etude.tasks.isolate import Pool
from etude.types import SamplingParams

METHODS = ("majority:n=16", "self_certainty:n=16", "beam:width=4,branch=4")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--tasks", default="chain_sum:max_terms=2,max_digits=2")
    parser.add_argument("--problems", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--repeat", type=int, default=3)
    given = parser.parse_args()
    problems = hold_out(sources.load(given.tasks), given.problems)
    with Pool(known=[t.check for t in problems]) as pool:
        policy = Policy.load(given.model)
        sampler = sampler_for(policy)
        params = SamplingParams(max_tokens=given.tokens)
        generator = Generator(sampler, policy.renderer, params, "policy", policy.context)
        check = checks_in(pool, sampler, {})

        def seconds_per_token(method: str, seed: int) -> float:
            policy.forget()
            rollout = played(method).rollout if method else None
            before, begin = policy.meter.generated, time.perf_counter()
            run_coroutine(attempt(generator, check, problems, 1 if method else 16, seed, rollout))
            return (time.perf_counter() - begin) / (policy.meter.generated - before)

        seconds_per_token("", -1)  # what is made at first use is made now
        ratios: dict[str, list[float]] = {method: [] for method in METHODS}
        for seed in range(given.repeat):
            for method in METHODS:
                plain, searched = seconds_per_token("", seed), seconds_per_token(method, seed)
                ratios[method].append(searched / plain)
    found = {method: {"median": statistics.median(r), "all": r} for method, r in ratios.items()}
    for method, ratio in found.items():
        shown(method, ratio)
    write_result("search", {"claim": "at most 1.3", "ratio": found[METHODS[0]]["median"], "methods": found})


if __name__ == "__main__":
    main()
