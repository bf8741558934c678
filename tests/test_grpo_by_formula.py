"""One GRPO step against the formula written out again, sequence by sequence, on a real (tiny) model in fp32."""

from pathlib import Path

import numpy as np
import torch

import worlds_of_letters as letters
from etude.batch import pack
from etude.train.collect import collect
from etude.train.setup import start


def groups_of(tmp_path: Path):
    plan = letters.plan(tmp_path, "grpo", 1, run__eval_problems=0, run__group_size=6, run__tasks_per_step=5)
    run = start(plan, tmp_path / "run", letters.words())
    kept, _ = collect(run)
    return run, kept


def grpo_gradient(
    model: torch.nn.Module, groups, low: float = 0.2, high: float = 0.2
) -> dict[str, torch.Tensor]:
    """Section 4.1 of arXiv 2402.03300 with beta = 0, by transformers and autograd."""
    loss = torch.zeros(())
    episodes = [(g, e) for g in groups for e in g.episodes]
    for group, episode in episodes:
        rewards = np.array([e.reward for e in group.episodes])
        advantage = (episode.reward - rewards.mean()) / (rewards.std() + 1e-4)
        tokens = torch.tensor(episode.tokens.astype(np.int64))[None]
        logp = torch.log_softmax(model(tokens).logits[0, :-1], -1).gather(1, tokens[0, 1:, None])[:, 0]
        mask = torch.tensor(episode.sampled[1:])
        ratio = (logp[mask] - torch.tensor(episode.logp[1:])[mask]).exp()
        gain = torch.minimum(ratio * advantage, ratio.clamp(1 - low, 1 + high) * advantage)
        loss = loss - gain.mean() / len(episodes)
    loss.backward()
    return {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def test_gradient_is_that_of_the_formula(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    run, groups = groups_of(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32)
    model.model.embed_tokens.padding_idx = None  # transformers gives the padding token's row no gradient
    theirs = grpo_gradient(model, groups)
    signals = run.credit(groups, run.context)
    found = run.learner.accumulate(run.objective, pack(signals, run.settings.sampling))
    assert found["loss/policy"][1] == sum(len(g.episodes) for g in groups), "also those that were left out"
    mine = dict(run.learner.policy.parameters())
    flat = torch.cat([p.grad.flatten() for p in mine.values() if p.grad is not None])
    run.close()
    norm = torch.sqrt(sum((g**2).sum() for g in theirs.values()))
    assert norm > 0.1
    assert abs(float(flat.norm()) - float(norm)) < 1e-4 * float(norm)
    # Element by element, through the names under which the model is saved.
    from etude.models.policy import Policy

    policy: Policy = run.learner.policy
    with torch.no_grad():
        for parameter in mine.values():
            if parameter.grad is not None:
                parameter.copy_(parameter.grad)
    policy.publish()
    saved = policy.state_dict()["weights"]
    assert saved is not None
    for name, tensor in policy.backbone.weights.state_dict().items():
        if name in theirs:
            assert torch.allclose(tensor, theirs[name], atol=1e-6, rtol=1e-4), name
            assert (
                not torch.allclose(-tensor, theirs[name], atol=1e-6, rtol=1e-4)
                or theirs[name].abs().max() < 1e-6
            )
