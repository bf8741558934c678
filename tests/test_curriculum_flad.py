"""FLAD: gradients of the output projection, and the bandits that are paid by their alignment."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

import toys
from etude.batch import pack
from etude.credit.group import constant
from etude.fixtures.curricula import ExampleContext, example_curriculum, example_task
from etude.fixtures.examples import example_episode
from etude.methods import find
from etude.methods.sampling_and_curricula.flad import TARGET, alignments, head_gradients
from etude.models.outputs import Outputs
from etude.types import Group

GRID = (("a", 0.0), ("a", 1.0), ("a", 2.0), ("b", 0.0), ("b", 1.0), ("b", 2.0))


def curriculum(name: str, arms=GRID, **settings):
    return example_curriculum(find(name), arms, settings)


def taught_lesson(name: str = "reinforce") -> toys.Lesson:
    found = toys.lesson(name, tasks=6, samples=6)
    assert sum(bool(s.advantage.any()) for s in found.signals) > 6 or name == "sft"
    return found


@pytest.mark.parametrize(("name", "temperature"), [("reinforce", 1.0), ("sft", 1.0), ("reinforce", 2.0)])
def test_the_gradient_of_the_output_projection_is_exact(name: str, temperature: float) -> None:
    """Against autograd through an explicit projection W = 1 on top of a table policy's outputs. log pi is taken at the
    sampling temperature; the gradient leaves its factor 1 / temperature, common to all arms, out."""
    lesson = taught_lesson(name)
    lesson.context.sampling = replace(lesson.context.sampling, temperature=temperature)
    batch = pack(lesson.signals, lesson.context.sampling)
    out = lesson.policy.outputs(batch, frozenset({"hidden"}))
    w = torch.eye(lesson.policy.size, dtype=torch.float64, requires_grad=True)
    logp = torch.log_softmax(out.hidden.detach() @ w.T / temperature, -1)
    chosen = logp.gather(1, batch.tokens[:, None])[:, 0]
    strength = batch.weights["imitation"] if name == "sft" else batch.weights["policy"] * batch.advantage
    (strength * batch.needed * chosen).sum().backward()
    parts = {TARGET: lesson.signals, 3: lesson.signals[::2]}
    (_, found), (_, half) = head_gradients(parts, lesson.context)
    assert w.grad.norm() > 0
    torch.testing.assert_close(found.double(), temperature * w.grad, rtol=1e-4, atol=1e-5)
    ((_, alone),) = head_gradients({0: lesson.signals[::2]}, lesson.context)
    torch.testing.assert_close(half, alone, rtol=1e-4, atol=1e-5)


def test_alignment_of_the_same_of_the_opposite_and_of_nothing() -> None:
    lesson = taught_lesson()
    alive = [s for s in lesson.signals if s.advantage.any()]
    against = [replace(s, advantage=-s.advantage) for s in alive]
    silent = [replace(s, advantage=0 * s.advantage) for s in alive]
    found = alignments({TARGET: alive, 0: alive, 1: against, 2: silent}, 0, lesson.context)
    assert found == {0: pytest.approx(1), 1: pytest.approx(-1)}
    assert alignments({TARGET: silent, 0: alive}, 0, lesson.context) == {}
    few = alignments({TARGET: alive, 0: alive}, 2, lesson.context)
    assert -1 <= few[0] <= 1


class ExampleHead:
    """A policy whose last hidden state is given for every token that it writes, f32[V, D], and whose output projection
    is 0, so that each of the V tokens has probability 1/V."""

    def __init__(self, hidden) -> None:
        self.hidden = torch.tensor(hidden)

    def score(self, batch, needs=frozenset()) -> Outputs:
        size = len(self.hidden)
        return Outputs(
            torch.zeros(len(batch)),
            hidden=self.hidden[batch.tokens],
            project=lambda rows: torch.zeros(len(rows), size),
        )


ARMS = [("x", 0.0), ("y", 0.0), ("z", 0.0)]  # z, the last, is the target
HEAD = ExampleHead(
    [[9.0, 9.0], [0.6, 0.8], [-1.0, 0.0], [1.0, 0.0]]
)  # where tokens 0, 1 (x), 2 (y), 3 (z) are written


def told(found, step: int, **advantages: float) -> None:
    """One step of eight tasks: each arm wrote a token of its own, with this advantage.

    Errors onehot - 1/4 of different tokens have the cosine -1/3. Between x and z that is times 0.6, -0.2 in all; between
    y and z it is times -1, 1/3 in all; turned where advantages differ in sign."""
    context = ExampleContext(step, 8 * step, policy=HEAD)
    found.next(8, context)
    signals = []
    for kind, advantage in advantages.items():
        token = 1 + "xyz".index(kind)
        episode = replace(example_episode(1.0, (0, token)), task=example_task((kind, 0.0), step))
        signals.append(constant(episode, advantage))
    found.observe([Group(s.episode.task, (s.episode,)) for s in signals], signals, context)


def test_cosines_reach_exp3() -> None:
    found = curriculum("exp3_flad", ARMS, every=1)
    told(found, 0, x=1.0, y=2.0, z=0.5)
    np.testing.assert_allclose(found.totals, [-0.2 / 0.5, 1 / 3 / 0.5], rtol=1e-5)
    assert found.turn == 2
    pi, before = found._pi(), found.totals.copy()
    told(found, 1, x=1.0, y=2.0, z=-0.5)
    np.testing.assert_allclose(found.totals - before, [0.2 / pi[0], -1 / 3 / pi[1]], rtol=1e-5)


def test_cosines_reach_ucb1() -> None:
    found = curriculum("ucb1_flad", ARMS, every=1)
    told(found, 0, x=1.0, y=1.0, z=1.0)
    np.testing.assert_allclose(found.means, [-0.2, 1 / 3], rtol=1e-5)
    told(found, 1, x=-1.0, z=1.0)
    np.testing.assert_allclose(found.means, [0.9 * -0.2 + 0.1 * 0.2, 1 / 3], rtol=1e-5)
    told(found, 2, x=0.0, y=1.0, z=1.0)
    np.testing.assert_allclose(
        found.means[0], 0.9 * -0.16, rtol=1e-5, err_msg="equal rewards count as cosine 0"
    )


def test_where_the_target_has_no_gradient_nothing_is_learnt() -> None:
    for advantages in ({"x": 1.0, "z": 0.0}, {"x": 1.0}):
        found = curriculum("exp3_flad", ARMS, every=1)
        told(found, 0, **advantages)
        assert found.totals.tolist() == [0, 0]
        assert found.turn == 1


def test_gradients_are_compared_every_few_steps() -> None:
    found = curriculum("exp3_flad", ARMS, every=2)
    told(found, 0, x=1.0, z=1.0)
    assert found.totals.tolist() == [0, 0]
    told(found, 1, x=1.0, z=1.0)
    np.testing.assert_allclose(found.totals, [-0.2 / 0.5, 0], rtol=1e-5)


def test_the_target_gets_its_share() -> None:
    found = curriculum("exp3_flad", target="b/1", target_share=0.25)
    requests = [r for i in range(50) for r in found.next(6, ExampleContext(step=i))]
    aimed = sum((r.kind, r.difficulty) == ("b", 1.0) for r in requests)
    assert aimed == pytest.approx(75, abs=15)
    assert found.next(8, ExampleContext())[0].why
    assert sum(r.why == "the target" for r in found.next(8, ExampleContext())) == 2
    assert found.report() == pytest.approx(
        {"b/1": 0.25, **{f"{n}": 0.15 for n in found.arms.names if n != "b/1"}}
    )


def test_exp3_prefers_what_helps_and_gives_nothing_up() -> None:
    found = curriculum("exp3_flad", [("a", 0.0), ("b", 0.0), ("c", 0.0)], target="c")
    for _ in range(41):
        found.learn({0: 0.5, 1: -0.5})
    found.next(1, ExampleContext())
    assert found.pi[0] > 0.8
    assert found.pi[1] > 0


def test_ucb1_measures_every_arm_and_returns_to_the_best() -> None:
    found = curriculum("ucb1_flad", target="b/2", target_share=0.01)
    rng = np.random.default_rng(0)
    assert sorted(found.play(5, rng)) == [0, 1, 2, 3, 4]
    found.learn({i: 0.9 if i == 3 else 0.0 for i in range(5)})
    plays = Counter(found.play(60, rng))
    assert plays.most_common(1)[0][0] == 3
    assert len(plays) == 5
