"""PretrainZero: a policy chooses what to hide in a text, and learns to find what is hidden.

Plain text becomes tasks without labels: one role names a passage of a paragraph, which is masked; the other reads the rest, thinks, and says what
stood there. Who masks earns most where predictions succeed seldom but not never, so it looks for what can be found out. PretrainZero:
Reinforcement Active Pretraining, arXiv 2512.03442."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any

import numpy as np

from etude import seeds
from etude.credit.group import Credit, assigned, standardised
from etude.curriculum.written import News, Written, tried_at_once
from etude.fixtures.curricula import built
from etude.fixtures.examples import example_episode
from etude.fixtures.inference import collected, example_question
from etude.methods.policy_gradient.grpo import RECIPE as GRPO
from etude.objective.policy import clipped
from etude.recipe import ByHand, Credited, Manipulated, OffPolicy, Paper, Recipe, Reduction
from etude.reward.learnability import learnability
from etude.rollout.basic import single
from etude.rollout.group_rollout import GroupRollout
from etude.settings import Setting, stage
from etude.stages import Context, Reward
from etude.tasks.check import Exact, NoText
from etude.types import NOISE, Episode, Group, Message, Signal, Task

MASKED = "masked"
"""Note of a text that was to name a passage: the share of predictions that found it, and the task that it became (None: it names none)."""

MASK, CLOZE = "mask", "cloze"  # kinds of the two roles' tasks
FIRST = 1 << 16  # index of the first prediction: beyond every sample's
HOLE = "[mask]"

ASK = "{text}\n\nChoose a passage of this text that can be worked out from the rest by thinking, and copy it word for word as \\mask{{passage}}."
FIND = "{text}\n\nWhat stood in place of [mask]? Think, then answer as \\boxed{{passage}}."


def passage(text: str, paragraph: str) -> str | None:
    """What the last \\mask{...} of a text holds; None where that is not a part of the paragraph, or all of it."""
    _, marked, rest = text.rpartition("\\mask{")
    depth, end = 1, None
    for i, c in enumerate(rest):
        depth += {"{": 1, "}": -1}.get(c, 0)
        if not depth:
            end = i
            break
    found = rest[:end].strip() if marked and end is not None else ""
    return found if found and found in paragraph and found != paragraph.strip() else None


def cloze(paragraph: str, hidden: str) -> Task:
    """The task of finding a passage that is hidden wherever it stands in the paragraph. Only its very words are right."""
    question = FIND.format(text=paragraph.replace(hidden, HOLE))
    return Task(
        (Message("user", question),), Exact(hidden, "boxed", ignore_case=False), kind=CLOZE, answer=hidden
    )


# ---- group rollout: masks of one paragraph, and predictions of each ----------------------------------------------------


class Masks:
    """Of a task that brings a worked solution, which is the paragraph: `masks` texts that name a passage of it, and for each that does
    as many predictions as run.group_size. A task whose solution is shorter than `text_words` words is attempted as it is."""

    def __init__(
        self,
        masks: Annotated[
            int, Setting("masks of a paragraph; 0: tasks are attempted as they are", low=0, high=64)
        ] = 8,
        random_until: Annotated[
            float, Setting("share of the run in which passages are drawn by chance", low=0, high=1)
        ] = 0.0,
        random_words: Annotated[int, Setting("longest passage that is drawn by chance", "words", low=1)] = 3,
        text_words: Annotated[
            int, Setting("shortest paragraph; shorter ones are no text", "words", low=2)
        ] = 4,
    ) -> None:
        self.masks, self.random_until, self.random_words = masks, random_until, random_words
        self.text_words = text_words
        self.last: dict[str, float] = {}
        self.told: list[News] = []

    async def __call__(self, rollouts: GroupRollout) -> list[Episode]:
        paragraph = rollouts.task.reference
        if not self.masks or len((paragraph or "").split()) < self.text_words or paragraph is None:
            return await rollouts.plays(range(rollouts.samples))
        if rollouts.progress < self.random_until:
            drawn = [
                self._by_chance(paragraph, seeds.generator(rollouts.key, "mask", k))
                for k in range(self.masks)
            ]
            found = await asyncio.gather(
                *(self._predicted(rollouts, cloze(paragraph, d), k) for k, d in enumerate(drawn))
            )
            return [e for _, episodes in found for e in episodes]
        asking = Task((Message("user", ASK.format(text=paragraph)),), NoText(MASK), kind=MASK)
        return [
            e
            for es in await asyncio.gather(
                *(self._masked(rollouts, asking, paragraph, k) for k in range(self.masks))
            )
            for e in es
        ]

    def _by_chance(self, paragraph: str, rng: np.random.Generator) -> str:
        words = paragraph.split(" ")
        number = min(int(rng.integers(1, self.random_words + 1)), max(1, len(words) - 1))
        at = int(rng.integers(len(words) - number + 1))
        return " ".join(words[at : at + number]).strip() or paragraph.strip()

    async def _masked(self, rollouts: GroupRollout, asking: Task, paragraph: str, k: int) -> list[Episode]:
        """One text of the role that masks, and predictions of what it hides."""

        async def choose(task: Task, conversation: Any) -> Episode:
            conversation.user(task.prompt)
            await conversation.reply(tag=MASK)
            return conversation.done(**{MASKED: (0.0, None)})

        (chosen,) = await rollouts.play(k, choose, asking)
        hidden = None if chosen.failure else passage(chosen.text, paragraph)
        task = None if hidden is None else cloze(paragraph, hidden)
        if task is None or not rollouts.admits(task):
            return [chosen]
        rate, predictions = await self._predicted(rollouts, task, k)
        chosen = await rollouts.score(replace(chosen, notes={**chosen.notes, MASKED: (rate, task)}))
        return [chosen, *predictions]

    async def _predicted(self, rollouts: GroupRollout, task: Task, k: int) -> tuple[float, list[Episode]]:
        """Predictions of one mask, and the share that is right."""
        indices = [FIRST + k * rollouts.samples + i for i in range(rollouts.samples)]
        made = await asyncio.gather(*(rollouts.play(i, single(), task) for i in indices))
        episodes = [e for es in made for e in es]
        tried = [e.correct for e in episodes if e.failure is None]
        return float(np.mean(tried)) if tried else 0.0, episodes

    def observe(self, groups: Sequence[Group], signals: Sequence[Signal], context: Context) -> None:
        made = [(e, *e.notes[MASKED]) for g in groups for e in g.episodes if MASKED in e.notes]
        named = [(e, rate, task) for e, rate, task in made if task is not None]
        self.told = tried_at_once([Written.by(e, task, context.step, rate) for e, rate, task in named])
        rates = [rate for _, rate, _ in named]
        clozes = [e for g in groups for e in g.episodes if e.task.kind == CLOZE]
        self.last = {"named": len(named) / len(made)} if made else {}
        self.last |= {"found": float(np.mean([e.correct for e in clozes]))} if clozes else {}
        self.last |= {"open": float(np.mean([0 < r < 1 for r in rates]))} if rates else {}

    def news(self) -> list[News]:
        return self.told

    def report(self) -> Mapping[str, float]:
        """The share of texts that name a passage of their paragraph, of predictions that are right, and of masks found now and then."""
        return {"named": 0.0, **self.last}


# ---- reward and credit ---------------------------------------------------------------------------------------------------


def two_roles() -> Reward:
    """1 for a passage that was found, else 0; for a mask 1 - s, s the share of predictions that found it, and 0 where none did or it is none."""

    def reward(episode: Episode) -> dict[str, float]:
        if MASKED in episode.notes:
            return {"reward": learnability(episode.notes[MASKED][0])}
        if episode.verdict is None:
            raise ValueError("the rollout ended without a verdict, so there is nothing to reward")
        return {"reward": episode.verdict.reward}

    return reward


def by_role(
    drop_alike: Annotated[bool, Setting("leave out groups whose rewards are all equal")] = True,
) -> Credit:
    """A = (r - mean r) / (std r + 1e-4) over the predictions of one mask, and over the masks of one paragraph."""

    def credit(groups: Sequence[Group], context: Context | None = None) -> list[Signal]:
        found = []
        for group in groups:
            alike: dict[str, list[Episode]] = {}
            for episode in group.episodes:
                alike.setdefault(episode.task.key, []).append(episode)
            parts = [Group(es[0].task, tuple(es)) for es in alike.values()]
            found += [p for p in parts if not drop_alike or np.ptp(p.rewards) > NOISE]
        return assigned(found, [standardised(p.rewards) for p in found])

    return credit


# ---- the recipe -----------------------------------------------------------------------------------------------------------

TEXT = "All men die. Plato is a man. So Plato dies."


def _masked(*said: str, masks: int = 1, samples: int = 2, **settings: Any) -> list[Episode]:
    """What comes of `TEXT` where the policy says this: a mask, then the predictions of it, and so on."""
    named = {f"group_rollout.{k}": v for k, v in {"masks": masks, **settings}.items()}
    return collected(RECIPE, said, None, named, samples, replace(example_question(), reference=TEXT))


def _rewarded(*said: str, **how: Any) -> list[float]:
    return [e.reward for e in _masked(*said, **how)]


def _advantages() -> list[float]:
    """Of two masks, one found by 1 of 2 predictions and one by none: the masks', and the predictions'."""
    made = _masked(
        "\\mask{dies}", "\\mask{man}", "\\boxed{dies}", "\\boxed{no}", "\\boxed{no}", "\\boxed{no}", masks=2
    )
    signals = built(RECIPE, "credit")([Group(made[0].task, tuple(made))])
    order = sorted(signals, key=lambda s: (s.episode.task.kind, s.episode.index))
    return [round(float(s.advantage[-1]), 3) for s in order]


RECIPE: Recipe = Recipe(
    name="pretrain_zero",
    base=GRPO,
    paper=Paper("PretrainZero: Reinforcement Active Pretraining", "2512.03442", 2025),
    published_lr=5e-7,
    idea="Any text is full of questions: hide a passage, and ask what stood there. The policy chooses what to hide and learns to find it. "
    "Who hides earns most where it is found seldom but not never, so neither what is obvious nor what nobody can know.",
    equation="r_find = 1[same words];  r_mask = 1 - mean r_find (0 where that is 0);  A = (r - mean) / std in each role's group;  clipped loss",
    departures=(
        "a paragraph is a task's worked solution (reference), so any file of texts or task source with solutions will do; the paper has Wikipedia",
        "GUESS: a passage is hidden wherever it stands in the paragraph; answers count where the words are the same, white space aside",
        "GUESS: the upper bound of the clip is 1.28; the values are not given",
        "predictions number run.group_size; masks and predictions of a paragraph are one group of the loop, told apart by credit",
        "a task whose solution has fewer than four words is no paragraph, and is attempted",
        "random masks are 1 to 3 words, in the first group_rollout.random_until of the run (100 steps in the paper, for a weaker model)",
    ),
    stages={
        "group_rollout": stage(Masks),
        "reward": stage(two_roles),
        "credit": stage(by_role),
        "objective": stage(clipped, clip_high=0.28, mean="token"),
    },
    needs=("reference", "text"),
    claim="Masks that were learnt are found now and then more often than random ones, and held-out text is predicted better.",
    manipulation=(Manipulated("a tenth of the texts name a passage", r"group_rollout\.named", 0.1),),
    examples=(
        ByHand(
            "found by one of two: 1/2 for the mask, 1, 0; by both: 0; by none: 0; no passage of the text; none of a random mask",
            lambda: [
                *_rewarded("Hide \\mask{dies}.", "\\boxed{dies}", "\\boxed{lives}"),
                *_rewarded("\\mask{a man}", "\\boxed{a man}", "so \\boxed{a man}"),
                *_rewarded("\\mask{dies}", "\\boxed{Dies}", "dies"),
                *_rewarded("\\mask{lives}"),
                *_rewarded("no", "no", random_until=1.0),
            ],
            [0.5, 1, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0],
        ),
        ByHand(
            "passages: of two the last, with braces; all of the text, none, unclosed",
            lambda: float(
                [
                    passage(t, "x = {a} b")
                    for t in ("\\mask{b} \\mask{{a}}", "\\mask{x = {a} b}", "{b}", "\\mask{b")
                ]
                == ["{a}", None, None, None]
            ),
            1,
        ),
        ByHand(
            "hidden wherever it stands",
            lambda: float(
                "All men die. [mask] is a man. So [mask] dies." in cloze(TEXT, "Plato").prompt[0].content
            ),
            1,
        ),
        ByHand("predictions 1 of 2; masks 1/2 and 0; where all fail nothing", _advantages, [1, -1, 1, -1]),
        ByHand(
            "a verdict is the reward of any other episode",
            lambda: built(RECIPE, "reward")(example_episode(1.0))["reward"],
            1,
        ),
        Credited(
            "1 of 4 found",
            [[1.0, 0, 0, 0]],
            [[0.75 / (3**0.5 / 4 + 1e-4), *[-0.25 / (3**0.5 / 4 + 1e-4)] * 3]],
        ),
        OffPolicy(
            "every token counts alike; the clip reaches to 1.28",
            ratio=(1.5, 1.1, 0.5),
            advantage=(1.0, 1.0, -1.0),
            lengths=(1, 2),
            loss=(-1.28 - 1.1 + 0.8) / 3,
            gradient=(0, -1.1 / 3, 0),
        ),
        Reduction(
            "no masks, the usual clip: GRPO",
            "grpo",
            {
                "group_rollout.masks": 0,
                "credit.drop_alike": False,
                "objective.clip_high": 0.2,
                "objective.mean": "episode",
            },
        ),
    ),
)
