"""T-REG: token rewards from two prompts."""

import numpy as np
import pytest
import torch

import toys
from etude.batch import pack
from etude.methods.preference.t_reg import contrasted_pairs, regularised
from etude.objective.preference import implicit_rewards, pairs_of
from etude.testing import laws
from etude.types import Message
from lessons import laws_hold, setting, trained

SHORT = {"credit.better": "good", "credit.worse": "bad"}  # the toy policy knows only its first 64 places


def test_laws_hold_where_prompts_are_short() -> None:
    laws_hold("t_reg", SHORT)


def test_token_rewards_contrast_two_prompts() -> None:
    _, where, groups = setting("t_reg")
    signals = contrasted_pairs(better="good", worse="bad")(groups, where)
    model, render = where.auxiliary["reference"], where.policy.renderer
    for signal in signals[:4]:
        episode = signal.episode
        said_ = render.decode(episode.tokens[episode.sampled])
        rows = []
        for how in ("good", "bad"):
            text = f"{how}\n\nQuestion: {episode.task.prompt[-1].content}\n\nResponse: {said_}"
            prompt = render.prompt([Message("user", text)])
            tokens = torch.from_numpy(np.concatenate([prompt, episode.tokens[episode.sampled]])).long()
            logp = torch.log_softmax(model.logits(tokens[:-1], torch.arange(1, len(tokens))), -1)
            rows.append(logp.gather(1, tokens[1:, None])[-int(episode.sampled.sum()) :, 0].detach().numpy())
        expected = 1 / (1 + np.exp(rows[1] - rows[0])) - 0.5
        assert np.allclose(trained(episode, signal.extras["token_reward"]), expected, atol=1e-5)
        assert np.abs(expected).max() > 1e-3 or len(expected) == 0
        assert not signal.extras["token_reward"][~episode.sampled].any()


@pytest.mark.parametrize("detach", [True, False])
def test_the_regulariser_by_the_formula(detach: bool) -> None:
    more = {"objective.dpo_beta": 0.3, **SHORT}
    lesson = toys.lesson("t_reg", {"objective.regulariser_weight": 0.5, "objective.detach": detach, **more})
    without = toys.lesson("t_reg", {"objective.regulariser_weight": 0.0, **more})
    mine = toys.gradient(lesson) - toys.gradient(without)
    batch = pack(lesson.signals)
    out = lesson.policy.outputs(batch)
    d = implicit_rewards(out, batch)
    loss = torch.zeros((), dtype=torch.float64)
    chosen, rejected = pairs_of(batch)
    for c, r in zip(chosen.tolist(), rejected.tolist(), strict=True):
        w = torch.sigmoid(0.3 * (d[r] - d[c]))
        for i in (c, r):
            on = (batch.episode == i) & (batch.weight("policy") != 0)
            pull = (0.3 * batch.extras["token_reward"] * out.logp)[on].sum()
            loss = loss - 0.5 * (w.detach() if detach else w) * pull / len(chosen)
    parameters = [p for _, p in lesson.policy.parameters()]
    theirs = torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)])
    assert laws.close(mine, theirs, 1e-5)
    assert not laws.close(-mine, theirs, 1e-5)


def test_the_regulariser_is_read_from_the_term() -> None:
    assert [t.name for t in regularised().terms] == ["preference", "regulariser"]
    assert regularised(regulariser_weight=0.0).terms[0].name == "preference"
