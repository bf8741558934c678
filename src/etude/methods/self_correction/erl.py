"""ERL: attempt, reflect, try again, and keep in the weights what worked.

A failed first attempt y_1 is followed by a reflection Delta on what the environment said of it, and by a second attempt
y_2 with the reflection's advice above the question. All three are reinforced with GRPO's advantage among parts of their
kind; a second attempt that succeeded is also learnt as an answer to the bare question, so that later it needs neither
the first attempt nor the advice. Experiential Reinforcement Learning, arXiv 2602.13949."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any

from etude.batch import Batch
from etude.channels import writes
from etude.credit.attempts import DISTILLED, compared, distilled, on_parts, scores_of
from etude.fixtures.attempts import advantages_of, credited_signals, example_attempts
from etude.models.outputs import Outputs
from etude.objective.hybrid import DistilWeight
from etude.objective.policy import High, KLWeight, Low, MeanOver, clipped, kl_to_start
from etude.objective.terms import MEANS, Objective, Term, TokenLoss, objective, sharing_denominator
from etude.recipe import ByHand, Manipulated, OffPolicy, Paper, Recipe, Reduction
from etude.reward.attempts import FIRST, SECOND, each_attempt
from etude.rollout.attempts import Share, attempt, attempt_tag, due, reworded
from etude.rollout.conversation import Conversation
from etude.rollout.second import REFLECTION, Again, Ask, Hint, between_tags, heard, worded
from etude.rollout.writers import Address, Longest, WhoWrites, Writer
from etude.settings import Setting, stage
from etude.stages import Context, Credit
from etude.types import Episode, Group, Signal, Task

# ---- rollout: x -> y_1; (x, y_1, feedback) -> Delta; (x, Delta) -> y_2 -----------------------------------

ADVICE = "reflection"
"""Note: the advice that the reflection came to."""

ASK_FOR_REFLECTION = (
    "{question}\n\nYour answer:\n{answer}\n\nWhat came of it: {feedback}\n\n"
    "{memory}What would help you to do better at this and at tasks like it? Write advice to yourself as "
    "<prompt>advice</prompt>."
)
MEMORY = "Advice that helped before: {}\n\n"
ADVISED = "{advice}\n\n{question}"


class Reflect:
    """An attempt; where its reward is below `threshold`, a reflection on it in the light of the feedback, then a
    second attempt at the same task with the advice above the question. The last advice that led to a right second
    attempt is remembered across episodes, from one step to the next, and shown to whoever reflects next."""

    def __init__(
        self,
        writer: WhoWrites = "policy",
        second: Share = 1.0,
        threshold: Annotated[float, Setting("reward below which the policy reflects", low=0, high=1)] = 1.0,
        remember: Annotated[bool, Setting("show the last advice that helped")] = True,
        hint: Hint = 0,
        ask: Ask = ASK_FOR_REFLECTION,
        again: Again = ADVISED,
        address: Address = "",
        longest: Longest = None,
    ) -> None:
        self.ask = worded(ask, "question", "answer", "feedback", "memory")
        self.again = worded(again, "question", "advice")
        self.writer = Writer(writer, address, longest)
        self.reads = self.writer.reads
        self.second, self.threshold, self.remember, self.hint = second, threshold, remember, hint
        self.memory = ""

    async def __call__(self, task: Task, conversation: Conversation) -> Episode:
        verdict, answer = await attempt(conversation, task.prompt, 1)
        if verdict.reward >= self.threshold or not due(conversation, self.second):
            return conversation.done()

        question, feedback = task.prompt[-1].content, heard(verdict, task, self.hint)
        memory = MEMORY.format(self.memory) if self.remember and self.memory else ""
        asked = self.ask.format(question=question, answer=answer, feedback=feedback, memory=memory)
        reflection = await self.writer.write(conversation, reworded(task.prompt, asked), REFLECTION)
        advice = between_tags(reflection)

        again = reworded(task.prompt, self.again.format(advice=advice, question=question))
        await attempt(conversation, again, 2, new_context=True, unaided=task.prompt)
        return conversation.done(**{ADVICE: advice})

    def observe(
        self, groups: Sequence[Group], signals: Sequence[Signal], context: Context | None = None
    ) -> None:
        """Remembers the last advice that helped."""
        for episode in (e for g in groups for e in g.episodes):
            if ADVICE in episode.notes and episode.correct:
                self.memory = episode.notes[ADVICE]

    def report(self) -> dict[str, float]:
        """Whether anything is remembered."""
        return {"remembers": float(bool(self.memory))}

    def state_dict(self) -> dict[str, Any]:
        return {"memory": self.memory}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.memory = state["memory"]


# ---- credit ------------------------------------------------------------------------------------------


@writes("policy", DISTILLED)
def experience(
    std: Annotated[bool, Setting("divide by the standard deviation of the part within the group")] = True,
    train_reflections: Annotated[bool, Setting("train the reflections")] = True,
    train_second: Annotated[bool, Setting("train second attempts with their reflection in view")] = True,
) -> Credit:
    """A(y_1) = GRPO(r_1) among first attempts; A(Delta) = A(y_2) = GRPO(r_2) among second attempts: a reflection is worth
    what the attempt that it led to is worth. Row `DISTILLED`: y_2 behind the bare question, with A = max(r_2, 0)."""

    def credit(groups: Sequence[Group], context: Context) -> list[Signal]:
        signals = []
        for group in groups:
            r2 = scores_of(group, SECOND)  # None where there was no second attempt
            first, second = compared(scores_of(group, FIRST), std), compared(r2, std)
            for i, episode in enumerate(group.episodes):
                parts = {attempt_tag(1): first[i]}
                parts |= {REFLECTION: second[i]} if train_reflections else {}
                parts |= {attempt_tag(2): second[i]} if train_second else {}
                signals.append(on_parts(episode, parts))
                if (kept := max(r2[i] or 0.0, 0.0)) > 0:
                    signals += distilled(episode, attempt_tag(2), DISTILLED, kept)
        return signals

    return credit


# ---- loss --------------------------------------------------------------------------------------------


def reinforce_and_keep(
    clip_low: Low = 0.2,
    clip_high: High = 0.28,
    mean: MeanOver = "sum",
    distil_weight: DistilWeight = 1.0,
    kl_weight: KLWeight = 0.0,
) -> Objective:
    """PPO's clip on what was written, and distil_weight x -max(r_2, 0) log pi(y_2 | x) on what worked. Both are divided
    by the number of episodes with an attempt, so that one success among many attempts counts as one of them."""

    def keep(out: Outputs, batch: Batch) -> TokenLoss:
        return -batch.advantage * out.logp

    whole = clipped(clip_low, clip_high, mean) + kl_to_start(kl_weight)
    if not distil_weight:
        return whole + objective(silent={DISTILLED})
    shared = sharing_denominator(MEANS[mean])
    return whole + objective(Term(DISTILLED, keep, shared, DISTILLED, distil_weight, proportional=True))


# ---- the recipe --------------------------------------------------------------------------------------


def _four() -> list[Signal]:
    """Credit of four episodes: right at once; wrong, then right; wrong twice; wrong, then half right."""
    tries = ((1.0,), (0.0, 1.0), (0.0, 0.0), (0.0, 0.5))
    return credited_signals(RECIPE, [example_attempts(*r, between=REFLECTION) for r in tries])


STD1 = math.sqrt(3) / 4 + 1e-4  # of 1, 0, 0, 0
STD2 = math.sqrt(1 / 6) + 1e-4  # of 1, 0, 0.5

RECIPE = Recipe(
    name="erl",
    paper=Paper("Experiential Reinforcement Learning", "2602.13949", 2026),
    published_lr=1e-6,
    idea="After a failed attempt the model reflects on what the environment said, and tries again with its own advice in view. "
    "Attempts and reflections are reinforced, the reflection by the success of the attempt that it led to; advice that worked is "
    "remembered for later tasks. What succeeded is also learnt as an answer to the bare question, so that it needs no reflection.",
    equation="L = PPO's clip on y_1, the reflection and y_2, A by GRPO among parts of a kind;  - max(r_2, 0) sum_t log pi(y_2t | x)",
    departures=(
        "the KL of the released settings (0.001) is off, so that no reference model is kept (--set objective.kl_weight=0.001)",
        "the memory changes between steps, not within one",
        "the reflection stands above the question in the user's message, since many templates have no system role",
        "all terms are divided by the number of episodes, whose parts are summed, where the paper counts each part as a sequence: "
        "a factor only",
        "one second attempt per reflection",
    ),
    stages={
        "rollout": stage(Reflect),
        "reward": stage(each_attempt),
        "credit": stage(experience),
        "objective": stage(reinforce_and_keep),
    },
    claim="On sparse-reward grid tasks first attempts succeed more often than under GRPO at equal compute; trying again without a "
    "reflection gains less.",
    manipulation=(Manipulated("one episode in twenty is mended", "attempts/wrong_right", 0.05),),
    examples=(
        ByHand(
            "scores of wrong, then half right: the last attempt's reward, the first's, the second's",
            lambda: [_four()[-2].episode.scores[name] for name in ("reward", FIRST, SECOND)],
            [0.5, 0, 0.5],
        ),
        ByHand(
            "first attempts 1, 0, 0, 0",
            lambda: advantages_of(_four(), attempt_tag(1)),
            [0.75 / STD1, -0.25 / STD1, -0.25 / STD1, -0.25 / STD1],
        ),
        ByHand(
            "second attempts 1, 0, 0.5: mean 0.5",
            lambda: advantages_of(_four(), attempt_tag(2)),
            [0.5 / STD2, -0.5 / STD2, 0],
        ),
        ByHand(
            "a reflection is worth what its second attempt is worth",
            lambda: advantages_of(_four(), REFLECTION),
            [0.5 / STD2, -0.5 / STD2, 0],
        ),
        ByHand(
            "kept: max(r_2, 0) of the second attempts that earned anything",
            lambda: advantages_of(_four(), attempt_tag(2), DISTILLED),
            [1, 0.5],
        ),
        OffPolicy(
            "two episodes: praise beyond the clip and within it, blame beyond and within; a third is kept, at "
            "probability 2 exp(-1), and shares their denominator",
            ratio=(1.5, 1.25, 0.5, 0.9, 2.0),
            advantage=(1.0, 1.0, -1.0, -1.0, 0.5),
            lengths=(2, 2, 1),
            weights={"policy": (1, 1, 1, 1, 0), DISTILLED: (0, 0, 0, 0, 1)},
            loss=(-1.28 - 1.25 + 0.8 + 0.9) / 2 - 0.5 * (math.log(2) - 1) / 2,
            gradient=(0, -1.25 / 2, 0, 0.9 / 2, -0.5 / 2),
        ),
        OffPolicy(
            "half the weight of what is kept, and a start twice as likely: k3 = 2 - 1 - log 2, gradient 1 - 2",
            ratio=(1.0, 1.0),
            advantage=(0.0, 0.5),
            lengths=(1, 1),
            weights={"policy": (1, 0), DISTILLED: (0, 1)},
            extras={"reference": (math.log(2) - 1, 0)},
            settings={"objective.kl_weight": 0.1, "objective.distil_weight": 0.5},
            loss=0.1 * (1 - math.log(2)) + 0.5 * 0.5,
            gradient=(-0.1, -0.25),
        ),
        Reduction(
            "no second attempts: GRPO",
            "grpo",
            {"rollout.second": 0.0, "objective.clip_high": 0.2},
            {"objective.mean": "sum"},
        ),
    ),
)
