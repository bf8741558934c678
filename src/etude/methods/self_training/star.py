"""STaR (Zelikman et al., arXiv 2203.14465): a model teaches itself to reason from its own right rationales; where it fails it is
told the answer and asked for a rationale that leads there.

The rationale that was written with the answer in view is kept where it is right, and learnt as if the answer had not been there.
Every round trains the weights that the run began with.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from etude.channels import writes
from etude.credit.imitate import IMITATION, imitate, tagged
from etude.credit.rounds import BEGINNING, START, Anew, begin_round
from etude.fixtures.attempts import example_attempts
from etude.fixtures.given import GivenContext, given_stage
from etude.methods.imitation.rft import RECIPE as RFT
from etude.recipe import ByHand, Paper, Recipe, Reduction
from etude.rollout.attempts import below
from etude.rollout.conversation import Conversation
from etude.settings import Setting, stage
from etude.stages import Context, Credit, Rollout
from etude.types import Episode, Group, Signal, Task
from etude.update import Update

FIRST, TOLD = "attempt 1", "attempt 2"
HINT = "(The answer is {answer}. Explain how to get there, then give it.)"


def rationalise(
    hint: Annotated[
        str,
        Setting("what stands below the question after a failure; {answer} is the right one; empty: nothing"),
    ] = HINT,
) -> Rollout:
    """An answer; where it is wrong another one with the right answer in view, which training does not see."""

    async def rollout(task: Task, conversation: Conversation) -> Episode:
        conversation.user(task.prompt)
        verdict = await conversation.check(await conversation.reply(FIRST))
        if not verdict.correct and hint:
            conversation.new_context(())
            said = below(task.prompt, hint.replace("{answer}", task.answer or ""))
            conversation.user(said, instead=task.prompt)
            await conversation.check(await conversation.reply(TOLD))
        return conversation.done()

    return rollout


@writes(IMITATION)
def rationales(anew: Anew = True) -> Credit:
    """Imitation of the attempt that was right; of nothing where neither was."""

    def credit(groups: Sequence[Group], context: Context) -> list[Signal]:
        begin_round(context, anew)
        right = [e for g in groups for e in g.episodes if e.correct]
        return [imitate(e, tagged(e, FIRST if e.verdicts[0].correct else TOLD)) for e in right]

    return credit


def _learnt() -> list[float]:
    """Right at once; wrong, then right when told; wrong twice: tokens of either attempt that are imitated."""
    episodes = [example_attempts(1.0), example_attempts(0.0, 1.0), example_attempts(0.0, 0.0)]
    context: Any = GivenContext(auxiliary={START: None})
    group = Group(episodes[0].task, tuple(episodes))
    signals = given_stage(RECIPE, "credit")([group], context)
    return [float(s.weights[IMITATION].sum()) for s in signals]


RECIPE: Recipe = Recipe(
    name="star",
    base=RFT,
    paper=Paper("STaR: Bootstrapping Reasoning With Reasoning", "2203.14465", 2022),
    idea="Keeps its own reasoning where it led to the right answer, and trains on it. Where it failed it is told the answer and reasons "
    "towards it; that is learnt as if nobody had told. Each round starts from the first weights.",
    equation="D = {y : right} + {y' ~ pi( . | x, answer) : right, x wrong at first};  theta_k = argmin from theta_0 of - sum_D log pi(y | x)",
    stages={
        "rollout": stage(rationalise),
        "credit": stage(rationales),
        "update": stage(Update, passes=2, minibatches=4),
    },
    auxiliary=BEGINNING,
    needs=("answer", "text"),
    exam={"rollout.hint": ""},
    departures=(
        "run.group_size answers to each problem, where the paper draws one",
        "a round is a step of the run; its length is run.tasks_per_step x update.passes, where the paper's rounds grow by a fifth",
        "a sentence tells the answer, where the paper marks it among the choices",
    ),
    claim="With rationalisation more problems are reached than by right answers alone, at first.",
    unchecked="right answers, and rationalisations of the others, are imitated in every round",
    examples=(
        ByHand("one token of the first attempt, two of the second", _learnt, [1, 2]),
        Reduction(
            "nobody is told, from the last weights: rft, repeats kept",
            "rft",
            {"rollout.hint": "", "credit.anew": False},
            {"credit.distinct": False},
        ),
    ),
)
