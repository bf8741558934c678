"""One GRPO gradient against TRL's trainer on the same completions and rewards. Needs TRL's own environment, which
`bench/contestants.py` makes; run with `make long`."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from etude.batch import pack
from test_grpo_by_formula import groups_of

HERE = Path(__file__).parent


@pytest.mark.long
def test_gradient_is_trls(tmp_path: Path) -> None:
    sys.path.insert(0, str(HERE.parent.parent / "bench"))
    from contestants import peer_python

    run, groups = groups_of(tmp_path)
    rows = [
        {
            "prompt": e.tokens[~e.sampled].tolist(),
            "completion": e.tokens[e.sampled].tolist(),
            "logp": e.logp[e.sampled].tolist(),
            "reward": e.reward,
        }
        for g in groups
        for e in g.episodes
    ]
    job = {
        "model": str(tmp_path / "model"),
        "rows": rows,
        "attempts": 6,
        "out": str(tmp_path / "grad.safetensors"),
    }
    (tmp_path / "job.json").write_text(json.dumps(job))
    subprocess.run(
        [peer_python("trl"), str(HERE / "trl_gradient.py"), str(tmp_path / "job.json")], check=True
    )
    theirs = load_file(job["out"])

    run.learner.accumulate(run.objective, pack(run.credit(groups, run.context), run.settings.sampling))
    policy = run.learner.policy
    with torch.no_grad():
        for _, parameter in policy.parameters():
            if parameter.grad is not None:
                parameter.copy_(parameter.grad)
    policy.publish()
    mine = policy.backbone.weights.state_dict()
    run.close()
    # TRL divides by the sample standard deviation (G - 1), we by that of the group (G).
    factor = float(np.sqrt(5 / 6))
    compared = 0
    for name, gradient in theirs.items():
        if name in mine and gradient.norm() > 1e-6:
            error = (factor * mine[name] - gradient).norm() / gradient.norm()
            assert error < 1e-3, f"{name}: {error}"
            compared += 1
    assert compared > 10
