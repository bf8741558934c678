"""Heads that let an unwanted answer through: their scores are derivatives, and factors of their channels are learnt."""

import numpy as np
import pytest
import torch

from etude import seeds
from etude.batch import pack
from etude.methods.behaviour.asguard import (
    PLAIN,
    SCALING,
    Guarded,
    attribution,
    pair_of,
    signed,
    while_scaled,
)
from etude.models.hooks import Hook, Scale, hooked
from etude.models.policy import Policy
from etude.models.tiny import tiny
from etude.rollout.demonstrate import DEMONSTRATED
from etude.tasks.check import Unjudged
from etude.tasks.pairs import CHOSEN, REJECTED
from etude.train.step import Learner
from etude.types import Episode, Group, Message, Span, Task
from etude.update import Update

HEADS = 4


@pytest.fixture(scope="module")
def policy() -> Policy:
    return tiny(layers=2, width=32, heads=HEADS, kv_heads=2, seed=5)


def group(prompt: list[int], good: list[int], bad: list[int], plain: str = "") -> Group:
    task = Task((Message("user", str(prompt)),), Unjudged(), meta={PLAIN: plain})
    asked = Span("user", np.array(prompt, np.int32), tag="prompt")
    sides = ((CHOSEN, good), (REJECTED, bad))
    made = [(asked, Span("assistant", np.array(tokens, np.int32), tag=side)) for side, tokens in sides]
    return Group(task, (), demonstrations=tuple(Episode(task, spans, player=DEMONSTRATED) for spans in made))


GROUPS = [group([9, 8, 7], [20, 21], [30]), group([6, 5], [20, 21], [31, 32, 33])]


class Standing:
    """What credit reads of a run."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy

    def rng(self, purpose: str, *parts: object) -> np.random.Generator:
        return seeds.generator(0, purpose, *parts)


def test_a_heads_score_is_the_slope_of_the_margin_as_it_is_scaled(policy: Policy) -> None:
    batch, sign = signed([both for g in GROUPS if (both := pair_of(g))])
    # y- (one token, then three) less y+ (two tokens each), a mean over the two pairs
    assert sorted(set(sign.tolist())) == pytest.approx([-0.25, 0.0, 1 / 6, 0.5])
    found = attribution(policy, batch, sign)
    assert found.shape == (2, HEADS)
    for block, head in ((1, 0), (2, 3)):
        margins = []
        for factor in (1.05, 0.95):
            s = torch.ones(32)
            s[head * 8 : head * 8 + 8] = factor
            with hooked(policy, Hook(block, Scale(s), "heads")), torch.no_grad():
                margins.append(float((sign * policy.outputs(batch).logp).sum()))
        assert found[block - 1, head] == pytest.approx((margins[0] - margins[1]) / 0.1, rel=0.05, abs=2e-4)


def test_factors_make_the_wanted_answer_likelier_and_are_on_in_training_alone(policy: Policy) -> None:
    credit, standing = Guarded(heads=2, scale_passes=4), Standing(policy)
    signals = credit(GROUPS, standing)  # type: ignore[arg-type]
    assert [s.episode.spans[-1].tag for s in signals] == [CHOSEN, CHOSEN]
    assert credit.report()["heads"] == 2.0
    changed = sum(int((s != 1).sum()) for s in policy.left[SCALING].values())
    assert changed == 2 * 8, "the channels of two heads"
    batch, objective = pack(signals), while_scaled()
    wanted = batch.weight("imitation")
    with torch.no_grad():
        plain = policy.outputs(batch).logp
        with objective.under(policy, batch):  # type: ignore[misc]
            scaled = policy.outputs(batch).logp
        assert torch.equal(policy.outputs(batch).logp, plain), "the factors are off again"
    assert float((wanted * scaled).sum()) > float((wanted * plain).sum()) + 1e-3
    again = Guarded(heads=2)
    again.load_state_dict(credit.state_dict())
    assert again(GROUPS, Standing(policy))  # type: ignore[arg-type]
    assert policy.left[SCALING] is credit.scaling, "what was found is kept"


def test_the_plain_form_counts_against_a_head(policy: Policy) -> None:
    """Where the attack is the plain form itself, no head lets it through more than it."""
    asked = policy.renderer.prompt([Message("user", "ask")], 1).tolist()
    compared = Guarded(heads=8, scale_passes=1)
    compared([group(asked, [20, 21], [30], plain="ask")], Standing(policy))  # type: ignore[arg-type]
    assert compared.chosen == []
    assert compared.scaling == {}
    alone = Guarded(heads=8, scale_passes=1)
    alone([group(asked, [20, 21], [30])], Standing(policy))  # type: ignore[arg-type]
    assert alone.chosen


def test_a_step_under_the_factors_moves_the_weights(policy: Policy) -> None:
    trained = policy.clone(frozen=False)
    assert not trained.left, "a clone has no factors"
    credit = Guarded(heads=2, scale_passes=1)
    learner = Learner(trained, Update(lr=1e-2), "guard", 0)
    signals = credit(GROUPS, Standing(trained))  # type: ignore[arg-type]
    first = learner.learn(while_scaled(), signals, 0, 0.0)["loss/imitation"]
    assert learner.learn(while_scaled(), signals, 1, 0.5)["loss/imitation"] < first
