"""The gradient of Nash-MD against TRL's, on the same completions, rewards and reference. Needs an older TRL's own environment, which
`bench/peers.py` makes; run with `make long`."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from compared_gradients import same_gradient
from safetensors.torch import load_file

import worlds_of_letters as letters
from etude.assembly import build
from etude.batch import pack
from etude.methods import find
from etude.methods.preference.nash_md import MIXTURE
from etude.models.policy import Policy
from etude.train.collect import collect
from etude.train.setup import start

HERE = Path(__file__).parent
BETA = 0.4


@pytest.mark.long
def test_gradient_is_trls(tmp_path: Path) -> None:
    sys.path.insert(0, str(HERE.parent.parent / "bench"))
    from peers import peer_python

    more = {
        "run__eval_problems": 0,
        "run__group_size": 6,
        "run__tasks_per_step": 5,
        "run__max_tokens": 7,
    }
    run = start(letters.plan(tmp_path, "grpo", 1, **more), tmp_path / "run", letters.words())
    groups, _ = collect(run)
    groups = [
        replace(
            g, episodes=tuple(replace(e, player=MIXTURE) if i > 2 else e for i, e in enumerate(g.episodes))
        )
        for g in groups
    ]
    reference = Policy.load(str(tmp_path / "model"), "fp32")
    with torch.no_grad():
        for _, parameter in reference.parameters():
            parameter.mul_(1.2)
    reference.publish()
    run.context.auxiliary["reference"] = reference
    _, stages = build(find("nash_md"), {"credit.kl_weight": BETA})
    signals = stages["credit"](groups, run.context)
    assert len(signals) == 15
    scored = run.context.with_logp(signals, "reference")
    opponents = [e.reward for g in groups for e in g.episodes[3:]]
    assert any(s.episode.reward != o for s, o in zip(scored, opponents, strict=True))
    job = {
        "model": str(tmp_path / "model"),
        "rows": [
            {
                "prompt": s.episode.tokens[~s.episode.sampled].tolist(),
                "completion": s.episode.tokens[s.episode.sampled].tolist(),
                "reference": s.extras["reference"][s.episode.sampled].tolist(),
                "reward": s.episode.reward,
                "opponent": other,
            }
            for s, other in zip(scored, opponents, strict=True)
        ],
        "beta": BETA,
        "out": str(tmp_path / "grad.safetensors"),
    }
    (tmp_path / "job.json").write_text(json.dumps(job), encoding="utf-8")
    subprocess.run(
        [peer_python("trl_1_8"), str(HERE / "trl_nash.py"), str(tmp_path / "job.json")], check=True
    )
    theirs = load_file(str(job["out"]))

    run.learner.accumulate(stages["objective"], pack(signals, run.settings.sampling))
    same_gradient(run, theirs)
