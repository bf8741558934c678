"""Re-ReST: failed samples are repaired by a reflector before self-training.

Self-training keeps right answers and throws the others away. Here a wrong answer is given back with what the
environment said of it; a right repair is kept too, as an answer to the bare question, and the model also learns to
repair. Re-ReST: Reflection-Reinforced Self-Training for Language Agents, arXiv 2406.01495."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

from etude.channels import writes
from etude.credit.attempts import distilled
from etude.credit.imitate import IMITATION, imitate, tagged
from etude.fixtures.attempts import credited_signals, example_attempts, weights_of
from etude.objective.imitation import cross_entropy
from etude.recipe import ByHand, Manipulated, OffPolicy, Paper, Recipe, Reduction
from etude.reward.attempts import each_attempt
from etude.rollout.attempts import attempt_tag
from etude.rollout.second import Refine
from etude.settings import Setting, stage
from etude.stages import Context, Credit
from etude.types import Episode, Group, Signal

Y1, Y2 = attempt_tag(1), attempt_tag(2)


def borrowed(wrong: Episode, right: Episode) -> Signal:
    """The prompt of `wrong`'s second attempt, answered with the first attempt of `right`."""
    last = max(i for i, s in enumerate(wrong.spans) if s.restart)
    answer = [replace(s, sampled=False, logp=None) for s in right.spans if s.tag == Y1]
    episode = replace(wrong, spans=(replace(wrong.spans[last], restart=False), *answer))
    return imitate(episode, tagged(episode, Y1))


@writes(IMITATION)
def repaired(
    train_repair: Annotated[
        bool, Setting("also learn to repair: the right answer after a wrong one and its feedback")
    ] = True,
) -> Credit:
    """For the agent: right first answers, and right second ones behind the bare question. For the reflector, with
    `train_repair`: right second ones behind the question, the wrong answer and its feedback; where the repair
    failed, the first right answer of the same group in its place."""

    def credit(groups: Sequence[Group], context: Context) -> list[Signal]:
        signals = []
        for group in groups:
            right = [e for e in group.episodes if e.verdicts[0].correct]
            signals += [imitate(e, tagged(e, Y1)) for e in right]
            for episode in group.episodes:
                if len(episode.verdicts) < 2 or episode.verdicts[0].correct:
                    continue
                if episode.correct:
                    signals += distilled(episode, Y2, IMITATION)
                    signals += [imitate(episode, tagged(episode, Y2))] if train_repair else []
                elif right and train_repair:
                    signals.append(borrowed(episode, right[0]))
        return signals

    return credit


def _three(**settings: bool) -> list[Signal]:
    """Credit of three episodes: right at once; repaired; not repaired."""
    episodes = [example_attempts(1.0), example_attempts(0.0, 1.0), example_attempts(0.0, 0.0)]
    return credited_signals(RECIPE, episodes, settings={f"credit.{k}": v for k, v in settings.items()})


RECIPE = Recipe(
    name="re_rest",
    paper=Paper("Re-ReST: Reflection-Reinforced Self-Training for Language Agents", "2406.01495", 2024),
    published_lr=3e-4,
    idea="Self-training keeps the answers that were right and throws the others away. "
    "Here a wrong answer is given back with what the environment said of it, and if its repair is right, that is kept as well. "
    "Repairs are stored as answers to the bare question, and the model also learns to repair.",
    equation="L = - mean_t log pi(y_t | x) over right y and right repairs;  - mean_t log pi(y_t | x, wrong y, feedback)",
    departures=(
        "agent and reflector are one model, trained together, where the paper gives each its own LoRA and trains the reflector first",
        "one round per step, from the current weights",
        "of environments, only the first action of an attempt that was not repaired teaches the reflector",
    ),
    confidence="memory",
    stages={
        "rollout": stage(Refine, critic="feedback"),
        "reward": stage(each_attempt),
        "credit": stage(repaired),
        "objective": stage(cross_entropy),
    },
    claim="With telling feedback more tasks have a right sample, and accuracy exceeds that of self-training at equal samples.",
    manipulation=(Manipulated("one episode in twenty is mended", "attempts/wrong_right", 0.05),),
    examples=(
        ByHand(
            "the right answer, for the agent and in place of the failed repair",
            lambda: weights_of(_three(), Y1, IMITATION),
            [1, 1],
        ),
        ByHand(
            "the repair, for the agent and for the reflector",
            lambda: weights_of(_three(), Y2, IMITATION),
            [1, 1],
        ),
        ByHand(
            "tokens of each: the answer behind its prompt, the repair behind the bare prompt of one token, the whole "
            "episode, the borrowed answer behind the second prompt",
            lambda: [len(s.episode.tokens) for s in _three()],
            [2 + 1, 1 + 2, 2 + 1 + 2 + 2, 2 + 1],
        ),
        ByHand(
            "the agent alone: the answer and the repair",
            lambda: [len(s.episode.tokens) for s in _three(train_repair=False)],
            [2 + 1, 1 + 2],
        ),
        OffPolicy(
            "a token mean over everything kept: -log p at exp(-1) twice and at 2 exp(-1)",
            ratio=(1.0, 1.0, 2.0),
            advantage=(0.0, 0.0, 0.0),
            lengths=(1, 2),
            weights={IMITATION: (1, 1, 1)},
            loss=(3 - math.log(2)) / 3,
            gradient=(-1 / 3, -1 / 3, -1 / 3),
        ),
        Reduction(
            "nothing is repaired: rejection-sampling fine-tuning",
            "rft",
            {"rollout.second": 0.0},
            {"credit.distinct": False},
        ),
    ),
)
