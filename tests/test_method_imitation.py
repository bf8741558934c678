"""Imitation: what single methods add to the laws that hold for all of them."""

import numpy as np
import pytest
import torch

import toys
from etude.assembly import build
from etude.batch import pack
from etude.methods import find
from etude.methods.imitation.otr import inverse_cdf
from etude.models.outputs import Outputs
from etude.testing.laws import close
from formulas import autograd, prepared
from lessons import same


def dft(lesson: toys.Lesson) -> torch.Tensor:
    """-mean_t sg[pi(y*_t)] log pi(y*_t): dynamic fine-tuning (arXiv 2508.05629)."""
    batch = pack(lesson.signals)
    logp = lesson.policy.outputs(batch).logp[batch.weight("imitation") != 0]
    parameters = [p for _, p in lesson.policy.parameters()]
    return torch.cat(
        [g.flatten() for g in torch.autograd.grad(-(logp.detach().exp() * logp).mean(), parameters)]
    )


def test_otr_is_a_multiple_of_dft_when_exact_and_at_temperature_one() -> None:
    lesson = toys.lesson(
        "otr", {"credit.draws": 0, "objective.miss_reward": -0.1, "objective.draw_temperature": 1.0}
    )
    assert same(toys.gradient(lesson), 1.1 * dft(lesson))


@pytest.mark.parametrize("settings", [{}, {"objective.miss_reward": 0.5, "objective.draw_temperature": 2.0}])
def test_otr_draws_estimate_the_exact_gradient(settings: dict) -> None:
    exact = toys.gradient(toys.lesson("otr", {"credit.draws": 0, **settings}))
    error = [
        float(
            (toys.gradient(toys.lesson("otr", {"credit.draws": k, **settings})) - exact).norm() / exact.norm()
        )
        for k in (100, 40_000)
    ]
    assert error[1] < 0.05
    assert error[1] < error[0] / 8, "the error falls like 1/sqrt(K)"


def test_ditto_repeats_a_sentence_after_the_one_before_it() -> None:
    lesson, _ = prepared("ditto", {"credit.loop_share": 1.0, "credit.ends": "+=", "credit.loop_length": 12})
    decode = lesson.policy.tokenizer.decode
    for signal in lesson.signals:
        prompt, before, loop = signal.episode.spans
        period = int(signal.extras["period"].max())
        assert decode(before.tokens) + decode(loop.tokens[:period]) in "3+4=7"
        assert len(before) + len(loop) == 12
        np.testing.assert_array_equal(loop.tokens, np.resize(loop.tokens[:period], len(loop)))
        start = len(prompt) + len(before)
        assert signal.weights["loop"].nonzero()[0].tolist() == [*range(start + period, len(signal.advantage))]
        assert signal.weights["first"].nonzero()[0].tolist() == [*range(start, start + period)]


def test_ditto_by_the_formula() -> None:
    lesson, _ = prepared("ditto", {"credit.loop_share": 1.0, "credit.ends": "+=", "credit.loop_length": 12})

    def formula(out: Outputs, batch):
        terms = []
        for t in (batch.weight("loop") > 0).nonzero()[:, 0].tolist():
            p, old = out.logp[t].exp(), out.logp[t - int(batch.extras["period"][t])].exp().detach()
            terms.append(-torch.log(1 - (p - 0.5 * old).abs()))
        return torch.stack(terms).mean()

    assert close(toys.gradient(lesson), autograd(lesson, formula))


def test_ditto_imitates_what_has_too_few_sentences() -> None:
    lesson, _ = prepared("ditto", {"credit.loop_share": 1.0, "credit.ends": "."})
    assert close(toys.gradient(lesson), toys.gradient(toys.lesson("sft")))


def test_ditto_tosses_one_coin_a_step() -> None:
    _, stages = build(find("ditto"), {"credit.ends": "+="})
    where = toys.context(toys.TablePolicy())
    groups = toys.play(stages, where.policy, [toys.task(i) for i in range(4)])
    kinds = []
    for step in range(40):
        where.step = step
        kinds.append({"loop" in s.weights for s in stages["credit"](groups, where)})
    assert all(len(kind) == 1 for kind in kinds)
    assert 10 < sum(True in kind for kind in kinds) < 30


def test_masked_thought_changes_what_is_read_and_nothing_else() -> None:
    _, stages = build(find("masked_thought"), {"credit.masked_share": 0.5, "credit.ramp_share": 0.0})
    where = toys.context(toys.TablePolicy())
    long = [toys.task(i, reference="3+4=7 " * 40) for i in range(2)]
    groups = toys.play(stages, where.policy, long)
    signals = stages["credit"](groups, where)
    batch = pack(signals)
    read = stages["objective"].corrupt(batch)
    shown = batch.weight("imitation") > 0
    assert (read == batch.tokens)[~shown].all(), "the question is never masked"
    changed = float((read != batch.tokens)[shown].double().mean())
    assert 0.42 < changed < 0.56, "half of the solution, but for fillings that hit by chance"
    where.step = 1
    assert not torch.equal(stages["objective"].corrupt(pack(stages["credit"](groups, where))), read)
    where.progress = 0.33
    _, ramped = build(find("masked_thought"))
    half = pack(ramped["credit"](groups, where))
    assert 0.13 < float((half.extras["read"] != half.tokens)[shown].double().mean()) < 0.26, "half-way to 0.4"


def test_masked_thought_with_nothing_but_holes_sees_the_question_only() -> None:
    _, stages = build(
        find("masked_thought"),
        {"credit.masked_share": 1.0, "credit.ramp_share": 0.0, "credit.random_share": 0.0},
    )
    policy = toys.TablePolicy()
    where = toys.context(policy)
    (one,) = toys.play(stages, policy, [toys.task(0)])
    batch = pack(stages["credit"]([one], where))
    read = stages["objective"].corrupt(batch)
    shown = batch.weight("imitation") > 0
    assert (read[shown] == policy.tokenizer.stops[0]).all()


def test_entropy_sft_keeps_the_tokens_whose_loss_exceeds_their_uncertainty() -> None:
    lesson, _ = prepared("entropy_sft", {"credit.trained_share": 0.5})
    sft = prepared("sft")[0].signals
    batch = pack(sft)
    out = lesson.policy.score(batch, frozenset({"entropy"}))
    shown = batch.weight("imitation") > 0
    delta = (-out.logp - 0.8 * out.entropy)[shown]
    wanted = delta >= delta.sort(descending=True).values[round(0.5 * len(delta)) - 1]
    assert torch.equal((pack(lesson.signals).weight("imitation") > 0)[shown], wanted)
    assert 0 < int(wanted.sum()) < len(wanted)


def test_a_draw_beyond_rounded_probabilities_is_the_last_token() -> None:
    """Cumulative sums end a little below 1."""
    p = torch.tensor([[0.5, 0.4999]])
    assert inverse_cdf(p, torch.tensor([[0.25, 0.75, 0.99999]])).tolist() == [[0, 1, 1]]
