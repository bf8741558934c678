"""Gradients of the policy-gradient and preference losses against TRL's trainers, off-policy, on the same completions, advantages and old
log-probabilities. Needs TRL's own environment, which `bench/peers.py` makes; run with `make long`."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compared_gradients import same_gradient
from safetensors.torch import load_file

import worlds_of_letters as letters
from etude import seeds
from etude.assembly import build
from etude.batch import pack
from etude.methods import find
from etude.train.collect import collect
from etude.train.setup import start
from etude.types import Signal

HERE = Path(__file__).parent
LENGTH = 7
BOUNDS = {"epsilon": 0.2, "epsilon_high": 0.28}
OURS = {"objective.clip_low": 0.2, "objective.clip_high": 0.28}

CASES = {  # recipe, our settings, TRL's configuration, how far the policy has moved (nats a token)
    "grpo": ("grpo", OURS, {"loss_type": "grpo", **BOUNDS}, 0.3),
    "grpo, dual clip": (
        "grpo",
        {**OURS, "objective.dual_clip": 3.0},
        {"loss_type": "grpo", "delta": 3.0, **BOUNDS},
        1.2,
    ),
    "dr_grpo": (
        "dr_grpo",
        {**OURS, "objective.length_divisor": LENGTH},
        {"loss_type": "dr_grpo", "max_completion_length": LENGTH, **BOUNDS},
        0.3,
    ),
    "dapo": ("dapo", OURS, {"loss_type": "dapo", **BOUNDS}, 0.3),
    "cispo": ("cispo", {"objective.clip_high": 0.28}, {"loss_type": "cispo", "epsilon_high": 1.28}, 0.3),
    "gspo": (
        "gspo",
        {"objective.clip_low": 0.1, "objective.clip_high": 0.15},
        {"loss_type": "grpo", "importance_sampling_level": "sequence", "epsilon": 0.1, "epsilon_high": 0.15},
        0.3,
    ),
    "rloo": ("rloo", {}, {}, 0.0),
    "dpo": ("dpo", {"objective.dpo_beta": 0.4}, {"beta": 0.4}, 0.3),
    "ipo": ("ipo", {"objective.ipo_tau": 0.4}, {"beta": 0.4, "loss_type": ["ipo"]}, 0.3),
    "robust_dpo": (
        "robust_dpo",
        {"objective.dpo_beta": 0.4, "objective.flip_rate": 0.2},
        {"beta": 0.4, "loss_type": ["robust"], "label_smoothing": 0.2},
        0.3,
    ),
    "rpo": (
        "rpo",
        {"objective.dpo_beta": 0.4, "objective.pessimism": 0.5, "objective.mean": "token"},
        {"beta": 0.4, "loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.2]},
        0.3,
    ),
    "kto": (
        "kto",
        {"objective.dpo_beta": 0.4, "objective.disliked_weight": 1.5},
        {"beta": 0.4, "undesirable_weight": 1.5},
        0.3,
    ),
    "cdpo": (
        "cdpo",
        {"objective.dpo_beta": 0.4, "objective.flip_rate": 0.2},
        {"beta": 0.4, "label_smoothing": 0.2},
        0.3,
    ),
    "cpo": (
        "cpo",
        {"objective.dpo_beta": 0.4, "objective.chosen_weight": 0.7},
        {"beta": 0.4, "chosen_weight": 0.7},
        0.3,
    ),
    "simpo": (
        "simpo",
        {"objective.simpo_beta": 1.5, "objective.target_margin": 0.6},
        {"beta": 1.5, "simpo_gamma": 0.6, "loss_type": "simpo"},
        0.3,
    ),
    "orpo": ("orpo", {"objective.odds_weight": 0.4}, {"beta": 0.4}, 0.3),
}
TRAINERS = {"rloo": "rloo", "kto": "kto", "cdpo": "cpo", "cpo": "cpo", "simpo": "cpo", "orpo": "orpo"}
TRAINERS |= dict.fromkeys(("dpo", "ipo", "robust_dpo", "rpo"), "dpo")
PREFERENCE = ("dpo", "kto", "cpo", "orpo")
BASELINE = 0.3  # KTO's divergence from the reference


def moved(signals: list[Signal], drift: float) -> list[Signal]:
    """The same signals, as if the policy had had other log-probabilities when it sampled."""
    found = []
    for i, signal in enumerate(signals):
        noise = drift * seeds.generator("trl", i).standard_normal(len(signal.advantage))
        start, spans = 0, []
        for span in signal.episode.spans:
            logp = (
                None
                if span.logp is None
                else (span.logp + noise[start : start + len(span)]).astype(np.float32)
            )
            spans.append(replace(span, logp=logp))
            start += len(span)
        found.append(replace(signal, episode=replace(signal.episode, spans=tuple(spans))))
    return found


def check_that_bounds_matter(policy: Any, batch: Any) -> None:
    ratio = (policy.score(batch).logp - batch.behaviour)[batch.sampled & batch.needed].exp()
    assert (ratio > 1.3).any(), "nothing lies beyond the bounds, so they are not compared"
    assert (ratio < 0.75).any()


@pytest.mark.long
@pytest.mark.parametrize("case", list(CASES))
def test_gradient_is_trls(case: str, tmp_path: Path) -> None:
    sys.path.insert(0, str(HERE.parent.parent / "bench"))
    from peers import peer_python

    recipe, settings, config, drift = CASES[case]
    more = {
        "run__eval_problems": 0,
        "run__group_size": 6,
        "run__tasks_per_step": 5,
        "run__max_tokens": LENGTH,
    }
    run = start(letters.plan(tmp_path, "grpo", 1, **more), tmp_path / "run", letters.words())
    groups, _ = collect(run)
    trainer = TRAINERS.get(recipe, "grpo")
    credit = build(find(recipe), settings)[1]["credit"] if trainer != "grpo" else run.credit
    run.context.auxiliary["reference"] = run.learner.policy  # for KTO's divergence, which is given below
    signals = moved(credit(groups, run.context), drift)
    if trainer in PREFERENCE:  # what they were sampled with stands for the reference
        signals = [replace(s, extras={**s.extras, "reference": s.episode.logp}) for s in signals]
    if trainer == "kto":
        z = {"baseline": BASELINE}
        signals = [
            replace(
                s, extras={**s.extras, **{n: np.full(len(s.advantage), v, np.float32) for n, v in z.items()}}
            )
            for s in signals
        ]
    rows = [
        {
            "prompt": s.episode.tokens[~s.episode.sampled].tolist(),
            "completion": s.episode.tokens[s.episode.sampled].tolist(),
            "logp": s.episode.logp[s.episode.sampled].tolist(),
            "advantage": float(s.advantage[s.episode.sampled][0]),
            "reference": s.episode.logp[s.episode.sampled].tolist(),
        }
        for s in signals
    ]
    job = {
        "model": str(tmp_path / "model"),
        "rows": rows,
        "attempts": 6,
        "config": config,
        "trainer": trainer,
        "baseline": BASELINE,
        "against_reference": recipe == "cdpo",
    }
    job["out"] = str(tmp_path / "grad.safetensors")
    (tmp_path / "job.json").write_text(json.dumps(job), encoding="utf-8")
    subprocess.run(
        [peer_python("trl"), str(HERE / "trl_gradient.py"), str(tmp_path / "job.json")], check=True
    )
    theirs = load_file(job["out"])

    _, stages = build(find(recipe), settings)
    batch = pack(signals, run.settings.sampling)
    run.learner.accumulate(stages["objective"], batch)
    policy = run.learner.policy
    if trainer == "grpo":
        check_that_bounds_matter(policy, batch)
    same_gradient(run, theirs)
