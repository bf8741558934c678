"""SELF: a model first learns to criticise and to refine, and then improves by what it refines, without labels.

At first, with labels, it learns two skills: feedback on an answer, and an answer mended by feedback. Then it uses them on problems whose
answers nobody tells: it answers, criticises itself, refines, judges the refinement, and learns those that it finds good as answers to the
bare question. Lessons of the first part are mixed in, so that the skills survive. SELF: Language-Driven Self-Evolution for Large Language
Model, arXiv 2310.00533."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

import numpy as np

from etude.channels import writes
from etude.credit.attempts import distilled
from etude.credit.imitate import IMITATION, imitate, tagged
from etude.fixtures.attempts import example_attempts
from etude.fixtures.given import GivenContext, given_stage
from etude.fixtures.inference import collected
from etude.methods.imitation.rft import RECIPE as RFT
from etude.recipe import ByHand, Manipulated, Paper, Recipe
from etude.reward.attempts import each_attempt
from etude.rollout.attempts import attempt_tag, reworded
from etude.rollout.conversation import Failed
from etude.rollout.group_rollout import GroupRollout
from etude.rollout.second import CRITICISE, CRITICISE_UNAIDED, CRITIQUE, Refine, worded
from etude.rollout.writers import Address, WhoWrites
from etude.settings import Setting, stage
from etude.stages import Context
from etude.types import Episode, Group, Signal
from etude.update import Update

Y2 = attempt_tag(2)
SKILLS, QUALIFIED = "skills", "qualified"
"""Notes: that an episode belongs to the part in which skills are learnt; whether the policy finds its refinement good."""

JUDGE = "{question}\n\nAn answer:\n{answer}\n\nIs this answer good and right? Reply Yes or No."
JUDGEMENTS = 1 << 16  # index of the first judgement: beyond every attempt's


class TwoParts:
    """Up to `skills_share` of the run: attempts, criticised by `critic`, who is told the task's feedback, and refined. Later: attempts
    that the policy criticises, refines and judges itself; what the checker says of them is only reported."""

    def __init__(
        self,
        skills_share: Annotated[
            float, Setting("share of the run in which skills are learnt from labelled tasks", low=0, high=1)
        ] = 0.3,
        critic: WhoWrites = "start",
        address: Address = "",
        refining: Annotated[
            bool, Setting("in the second part criticise and refine; without, answers are judged as they are")
        ] = True,
        judge_request: Annotated[str, Setting("how a judgement is asked for")] = JUDGE,
    ) -> None:
        self.share, self.refining = skills_share, refining
        self.wording = worded(judge_request, "question", "answer")
        self.taught = Refine(critic=critic, always=True, ask=CRITICISE, address=address)
        self.own = Refine(critic="policy", always=refining, second=float(refining), ask=CRITICISE_UNAIDED)
        self.reads = self.taught.reads

    async def __call__(self, rollouts: GroupRollout) -> list[Episode]:
        if rollouts.progress < self.share:
            made = await rollouts.plays(range(rollouts.samples), self.taught)
            return [replace(e, notes={**e.notes, SKILLS: True}) for e in made]
        made = await rollouts.plays(range(rollouts.samples), self.own)
        return list(await asyncio.gather(*(self._judged(rollouts, e) for e in made)))

    async def _judged(self, rollouts: GroupRollout, episode: Episode) -> Episode:
        if episode.failure is not None:
            return episode

        talk = rollouts.conversation(JUDGEMENTS + episode.index)
        asked = self.wording.format(question=talk.task.prompt[-1].content, answer=episode.text)
        talk.user(reworded(talk.task.prompt, asked))
        try:
            said = await talk.reply(tag="judgement")
        except Failed as failed:
            return replace(episode, failure=failed.failure)
        good = re.match(r"\W*yes\b", said, re.IGNORECASE) is not None
        return replace(episode, notes={**episode.notes, QUALIFIED: good})


@writes(IMITATION)
class SkillsThenAnswers:
    """First part, of every refinement that is right: its critique behind the answer without the label, the refinement behind the
    critique, and, at `direct_weight`, behind the bare question. Second part: refinements that qualify, behind the bare question, and
    lessons of the first part again."""

    def __init__(
        self,
        direct_weight: Annotated[
            float, Setting("beta: weight of a refinement as a first answer, while skills are learnt", low=0)
        ] = 1.0,
        replay: Annotated[
            float, Setting("lessons of skills for each answer that is learnt in the second part", low=0)
        ] = 0.5,
        filtered: Annotated[bool, Setting("learn only what the policy finds good")] = True,
        most_lessons: Annotated[
            int, Setting("lessons of skills that are kept; the oldest leave", low=1)
        ] = 4096,
    ) -> None:
        self.beta, self.replay, self.filtered, self.most = direct_weight, replay, filtered, most_lessons
        self.kept: list[Signal] = []
        self.last: dict[str, float] = {}

    def __call__(self, groups: Sequence[Group], context: Context) -> list[Signal]:
        episodes = [e for g in groups for e in g.episodes]
        skills = [s for e in episodes if SKILLS in e.notes for s in self._skills(e)]
        good = [e for e in episodes if QUALIFIED in e.notes and (e.notes[QUALIFIED] or not self.filtered)]
        answers = [s for e in good for s in _answer(e)]
        again: list[Signal] = []
        if answers and self.kept:
            number = min(len(self.kept), round(self.replay * len(answers)))
            chosen = context.rng("skills").choice(len(self.kept), number, replace=False)
            again = [self.kept[int(i)] for i in sorted(chosen)]
        self.kept = [*self.kept, *skills][-self.most :]
        self._measure(episodes)
        return [*skills, *answers, *again]

    def _skills(self, episode: Episode) -> list[Signal]:
        if not episode.correct or len(episode.verdicts) < 2:
            return []
        refined = imitate(episode, tagged(episode, Y2))
        direct = distilled(episode, Y2, IMITATION) if self.beta else []
        weighed = [
            replace(s, weights={IMITATION: np.float32(self.beta) * s.weights[IMITATION]}) for s in direct
        ]
        return [*distilled(episode, CRITIQUE, IMITATION), refined, *weighed]

    def _measure(self, episodes: Sequence[Episode]) -> None:
        judged = [e for e in episodes if QUALIFIED in e.notes]
        self.last = {"lessons": float(len(self.kept))}
        if judged:
            good = [e for e in judged if e.notes[QUALIFIED]]
            self.last["qualified"] = len(good) / len(judged)
            self.last["good_right"] = float(np.mean([e.correct for e in good])) if good else 0.0

    def report(self) -> dict[str, float]:
        """Lessons of skills that are kept; of the last step's refinements the share that the policy finds good, and of these the share
        that is right."""
        return dict(self.last)

    def state_dict(self) -> dict[str, Any]:
        return {"kept": list(self.kept), "last": dict(self.last)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.kept, self.last = list(state["kept"]), dict(state["last"])


def _answer(episode: Episode) -> list[Signal]:
    """The refinement behind the bare question; the attempt itself, where there is none."""
    if len(episode.verdicts) > 1:
        return distilled(episode, Y2, IMITATION)
    return [imitate(episode, episode.sampled)]


# ---- numbers ---------------------------------------------------------------------------------------------------------


def _learnt(*episodes: Episode, **settings: Any) -> list[list[float]]:
    """Of each signal: tokens that are learnt, tokens of the sequence, and the weight."""
    credit = given_stage(RECIPE, "credit", **settings)
    signals = credit([Group(episodes[0].task, tuple(episodes))], GivenContext())
    return [
        [float((s.weights[IMITATION] > 0).sum()), len(s.advantage), float(s.weights[IMITATION].max())]
        for s in signals
    ]


def _noted(*rewards: float, **notes: bool) -> Episode:
    made = example_attempts(*rewards, between=CRITIQUE)
    return replace(made, notes={**made.notes, **notes})


def _replayed(**settings: Any) -> list[int]:
    """Signals of a step that learns a skill, and of one that learns two answers after it."""
    credit, made = given_stage(RECIPE, "credit", **settings), _noted(0.0, 1.0, skills=True)
    answers = tuple(_noted(0.0, 1.0, qualified=True) for _ in range(2))
    return [len(credit([Group(made.task, es)], GivenContext())) for es in ((made,), answers)]


def _judged(*said: str, progress: float = 1.0, **settings: Any) -> list[float]:
    """Whether the refinement of one attempt at "3+4?" qualifies (-1: skills), and how many attempts there were."""
    named = {f"group_rollout.{k}": v for k, v in settings.items()}
    critic = {"reference": ["It is 7."]}
    (e,) = collected(RECIPE, said, critic, named, progress=progress)
    return [float(e.notes.get(QUALIFIED, -1)), len(e.verdicts)]


RECIPE: Recipe = Recipe(
    name="self_evolution",
    base=RFT,
    paper=Paper("SELF: Language-Driven Self-Evolution for Large Language Model", "2310.00533", 2023),
    idea="The model first learns to criticise answers and to mend them, from tasks whose answers are known. "
    "Then it answers, criticises, mends and judges by itself, and learns what it finds good as an answer of its own. "
    "Nobody labels the second part.",
    equation="skills: L = - log pi(f | x, y) - log pi(y' | x, y, f) - beta log pi(y' | x);  evolution: L = - log pi(y' | x), y' judged good, "
    "mixed with lessons of skills",
    stages={
        "group_rollout": stage(TwoParts),
        "reward": stage(each_attempt),
        "credit": stage(SkillsThenAnswers),
        "update": stage(Update, passes=2, minibatches=4),
    },
    needs=("text",),
    departures=(
        "skills are learnt from critiques by the model as it began, which is told what the checker says, or by run.teacher, and from refinements that "
        "came out right; the paper's corpus was written by a larger model",
        "the judgement is a Yes or No, where the paper asks for feedback on the refinement and reads whether it qualifies",
        "a run trains on from the last weights; the paper compares that with starting from the skilled model on the data of all rounds",
        "GUESS: beta = 1, one lesson of skills for two answers; three tenths of the run for skills",
        "refining an answer when it is given is `ask`'s and `eval`'s second attempt, not a part of this recipe",
    ),
    confidence="memory",
    claim="What is judged good before it is learnt raises accuracy beyond that of the skills alone, and more than what is not judged.",
    manipulation=(
        Manipulated("a tenth of the refinements qualify", r"credit\.qualified", 0.1, read="max"),
        Manipulated("skills are learnt", r"credit\.lessons", 1, read="max"),
    ),
    examples=(
        ByHand(
            "of a right refinement of two tokens: the critique, unaided; itself, with all that came before in view; at 1/2 as a first answer; of a wrong one nothing",
            lambda: [
                *np.ravel(_learnt(_noted(0.0, 1.0, skills=True), direct_weight=0.5)),
                len(_learnt(_noted(1.0, 0.0, skills=True))),
            ],
            [1, 2, 1, 2, 10, 1, 2, 3, 0.5, 0],
        ),
        ByHand(
            "what qualifies, as a first answer; what does not only if nothing is filtered; a lone attempt as it is",
            lambda: [
                len(_learnt(_noted(0.0, 1.0, qualified=True), _noted(1.0, 1.0, qualified=False))),
                len(_learnt(_noted(0.0, 1.0, qualified=False), filtered=False)),
                *_learnt(_noted(0.0, qualified=True))[0],
            ],
            [1, 1, 1, 3, 1],
        ),
        ByHand(
            "lessons again: half as many as answers; none",
            lambda: [*_replayed(), *_replayed(replay=0.0)],
            [3, 3, 3, 2],
        ),
        ByHand(
            "judged good, and not; unrefined; told by the critic, who knows the label",
            lambda: [
                *_judged("5", "wrong", "7", "Yes."),
                *_judged("5", "wrong", "7", "No, yes"),
                *_judged("7", "yes", refining=False),
                *_judged("5", "7", progress=0.0),
            ],
            [1, 2, 0, 2, 1, 1, -1, 2],
        ),
    ),
)
