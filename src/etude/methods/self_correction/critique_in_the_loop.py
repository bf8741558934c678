"""Critique in the loop: where self-training finds no right answer, a critic says what is wrong and the answer is refined.

Rounds of self-training see easy problems again and again, since those are solved. Here every wrong answer is criticised by
a model that does not see the right one, and refined; what came out right is learnt as an answer to the bare question, beside
the answers that were right at once. Every round trains the weights that the run began with. Enhancing LLM Reasoning via
Critique Models with Test-Time and Training-Time Supervision (AutoMathCritique), arXiv 2411.16579; `selfimprove/` of its
released code."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any

from etude.channels import writes
from etude.credit.attempts import distilled
from etude.credit.imitate import IMITATION, imitate, tagged
from etude.credit.rounds import START, Anew, begin_round
from etude.fixtures.attempts import credited_signals, example_attempts, weights_of
from etude.fixtures.given import GivenModel, SetBack
from etude.methods.self_training.rest_em import RECIPE as REST_EM
from etude.recipe import ByHand, Manipulated, Paper, Recipe, Reduction
from etude.reward.attempts import each_attempt
from etude.rollout.attempts import attempt_tag
from etude.rollout.second import CRITICISE_UNAIDED, Refine
from etude.settings import Setting, stage
from etude.stages import Context, Credit
from etude.types import Episode, Group, Signal

Y1, Y2 = attempt_tag(1), attempt_tag(2)

# ---- credit: D = {(x, y) : right} + {(x, y') : y wrong, y' right, no shortcut} -----------------------------------------


def shortcut(solution: str, wrong: str, refined: str, fewer: int) -> bool:
    """Whether a refinement has more than `fewer` numbers less than the shorter of the task's solution and the wrong answer:
    it names the result and leaves the working out."""
    in_solution, in_wrong, in_refined = (len(re.findall(r"\d+", text)) for text in (solution, wrong, refined))
    return in_refined < min(in_solution, in_wrong) - fewer


@writes(IMITATION)
def answers_and_refinements(
    fewer_numbers: Annotated[
        int,
        Setting("how many numbers less than solution and wrong answer a refinement may have", low=0),
    ] = 2,
    train_refining: Annotated[
        bool, Setting("also learn to refine: the right answer after the wrong one and its critique")
    ] = False,
    anew: Anew = True,
) -> Credit:
    """Imitation of right answers, and of right refinements behind the bare question."""

    def credit(groups: Sequence[Group], context: Context) -> list[Signal]:
        begin_round(context, anew)
        signals = []
        for episode in (e for g in groups for e in g.episodes):
            if episode.verdicts[0].correct:
                signals.append(imitate(episode, tagged(episode, Y1)))
            elif episode.correct and not short(episode, context):
                signals += distilled(episode, Y2, IMITATION)
                signals += [imitate(episode, tagged(episode, Y2))] if train_refining else []
        return signals

    def short(episode: Episode, context: Context) -> bool:
        decode = context.policy.renderer.decode
        wrong, refined = (decode(episode.tokens[tagged(episode, tag)]) for tag in (Y1, Y2))
        return shortcut(episode.task.reference or episode.task.answer or "", wrong, refined, fewer_numbers)

    return credit


# ---- the recipe ------------------------------------------------------------------------------------------------------


def _learnt(step: int = 0, **settings: Any) -> tuple[list[Signal], int]:
    """Credit of: right at once; wrong and refined; wrong twice. And how often the first weights were put back."""
    episodes = [example_attempts(1.0), example_attempts(0.0, 1.0), example_attempts(0.0, 0.0)]
    learner = SetBack()
    context: dict[str, Any] = {
        "step": step,
        "learner": learner,
        "auxiliary": {START: None},
        "policy": GivenModel(),
    }
    changed = {f"credit.{name}": value for name, value in settings.items()}
    return credited_signals(RECIPE, episodes, settings=changed, **context), learner.back


RECIPE: Recipe = Recipe(
    name="critique_in_the_loop",
    base=REST_EM,
    paper=Paper(
        "Enhancing LLM Reasoning via Critique Models with Test-Time and Training-Time Supervision",
        "2411.16579",
        2024,
    ),
    published_lr=5e-6,
    idea="Self-training gets most of its answers from easy problems. Here a critic reads every wrong answer, says which step is "
    "wrong, and the policy answers anew with that in view. What is right then is learnt as if nobody had helped. "
    "Each round trains the first weights.",
    equation="D_k = {(x, y) : right} + {(x, y') : y wrong, y' ~ pi_{k-1}(. | x, y, c), right};  theta_k = argmin from theta_0 of - sum_D log pi",
    departures=(
        "the critic is the policy as the run began, asked for a critique; the paper trains one on 76k critiques of a stronger model: "
        "--set rollout.critic=teacher or remote names it",
        "one critique of each wrong answer, sampled as answers are, and one refinement; the paper's critic is greedy, and its README "
        "draws five answers and may draw several refinements, of which it keeps one",
        "question, answer and critique stand in a fresh prompt, where the paper goes on in the same conversation",
        "the solutions that the paper's actor was first taught with are not mixed into later rounds: `sft` comes before, as a run of its own",
        "a round is a step of the run, as in rest_em",
    ),
    stages={
        "rollout": stage(Refine, critic="start", ask=CRITICISE_UNAIDED),
        "reward": stage(each_attempt),
        "credit": stage(answers_and_refinements),
    },
    needs=("text",),
    claim="Hard problems are in each round more often than without a critic, and after three rounds accuracy is higher.",
    manipulation=(Manipulated("one episode in twenty is mended", "attempts/wrong_right", 0.05),),
    examples=(
        ByHand(
            "right at once, and refined behind the bare question: the weight of either attempt, tokens of each sequence",
            lambda: [
                *(w for tag in (Y1, Y2) for w in weights_of(_learnt()[0], tag, IMITATION)),
                *(len(s.episode.tokens) for s in _learnt()[0]),
            ],
            [1, 1, 2 + 1, 1 + 2],
        ),
        ByHand(
            "the refinement behind question, wrong answer and critique as well",
            lambda: [len(s.episode.tokens) for s in _learnt(train_refining=True)[0]],
            [2 + 1, 1 + 2, 2 + 1 + 2 + 2],
        ),
        ByHand(
            "the first weights: not before round 0, before round 2, never",
            lambda: [_learnt(0)[1], _learnt(2)[1], _learnt(2, anew=False)[1]],
            [0, 1, 0],
        ),
        ByHand(
            "five numbers in the solution, four in the wrong answer: two may be missing, three may not",
            lambda: [shortcut("1 2 3 4 5", "1 2 3 9", said, 2) for said in ("7 12", "12", "")],
            [0, 1, 1],
        ),
        Reduction(
            "no critique, from the last weights: rft, repeats kept",
            "rft",
            {"rollout.second": 0.0, "credit.anew": False},
            {"credit.distinct": False},
        ),
    ),
)
