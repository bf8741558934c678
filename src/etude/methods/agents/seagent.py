"""SEAgent: what a judge finds good in an agent's own attempts is practised step by step, and the first bad step of a failed attempt is made less likely.

Sun et al. (arXiv 2508.04700); rewards and the loss of bad steps after the released code (SunzeY/SEAgent, open_r1/grpo_gui.py and trainer/grpo_trainer.py).

- A judge reads each attempt at a world: it succeeded, or its step k was the first bad one.
- Good steps (h, a*) are those of attempts that succeeded, and those before the first bad one. Some are practised: several replies a to h, each with the reward
  r = 1[same kind of action] + BLEU-4 over the characters of what it acts on; GRPO among the replies to h.
- On the tokens of a first bad step: L_AI = - log sigmoid(- log pi / pi_start), a mean over tokens; L = L_GRPO + 0.2 L_AI.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
import torch.nn.functional as F

from etude import seeds
from etude.batch import Batch
from etude.channels import writes
from etude.credit.group import assigned, laid, standardised
from etude.fixtures.examples import EXAMPLE_TASK, example_episode
from etude.fixtures.given import GivenContext, example_answers, given_stage
from etude.fixtures.inference import collected, example_question
from etude.methods.policy_gradient.grpo import RECIPE as GRPO
from etude.models.outputs import Outputs
from etude.objective.policy import High, KLWeight, Low, clipped
from etude.objective.terms import Objective, Term, TokenLoss, objective, per_token
from etude.recipe import ByHand, Manipulated, OffPolicy, Paper, Recipe, Reduction
from etude.rollout import turns
from etude.rollout.conversation import Conversation
from etude.rollout.expert import EXPERT, MOVE, carried_out, cut_off, opening, same_action
from etude.rollout.group_rollout import GroupRollout, verdict
from etude.rollout.writers import WRITERS, Address, Writer
from etude.settings import Setting, stage
from etude.stages import Context, Credit, Reward, Rollout
from etude.tasks.worlds.commands import command_of
from etude.text.overlap import bleu
from etude.types import Environment, Episode, Group, Message, Signal, Task, Verdict

ADVERSE = "adverse"
"""The weight row of first bad steps."""

BAD, PRACTICE = "bad_step", "practice"
"""Notes. Of an attempt: the first span of its first bad step and the one behind its last, or None. Of a practised reply: the number of its step, and the command that
was good there."""

REPLIES = 1 << 16  # the numbers of practised replies begin here
JUDGE = (
    "{question}\n\nThe turns:\n{log}\n\nThe answer is wrong. What line is the first that is wrong? Say the number of the line and nothing else. Say 0 where "
    "nothing is wrong."
)


def likeness(mine: str, good: str) -> float:
    """r of a command: its first word is the kind of action, the rest what it acts on."""
    (kind, _, rest), (wanted, _, what) = (text.partition(" ") for text in (mine, good))
    return 1.0 + bleu(rest, what) if kind and kind == wanted else 0.0


# ---- group rollout ---------------------------------------------------------------------------------------------------


@dataclass
class Step:
    before: Conversation
    text: str
    spans: tuple[int, int]
    expert: str  # what a scripted expert would have done


class Practised:
    """Attempts, judged; and replies to some of their good steps. Of a task without an environment an attempt is one step."""

    def __init__(
        self,
        practised: Annotated[
            int,
            Setting(
                "good steps of a task that are practised; 0: attempts are trained as they are", low=0, high=64
            ),
        ] = 2,
        step_replies: Annotated[int, Setting("replies to each of them", low=2, high=64)] = 4,
        judge: Annotated[
            str,
            Setting(
                "who finds the first bad step: the world's scripted expert, or a model",
                choices=("expert", *WRITERS),
            ),
        ] = "expert",
        address: Address = "",
    ) -> None:
        self.practised, self.replies = practised, step_replies
        self.writer = None if judge == "expert" else Writer(judge, address, longest=8)
        self.reads = self.writer.reads if self.writer else frozenset()
        self.last: dict[str, float] = {}

    async def __call__(self, rollouts: GroupRollout) -> list[Episode]:
        if not self.practised:
            return await rollouts.plays(range(rollouts.samples))
        courses: list[list[Step]] = [[] for _ in range(rollouts.samples)]
        jobs = (rollouts.play(i, self._course(steps)) for i, steps in enumerate(courses))
        played = [found[0] for found in await asyncio.gather(*jobs)]
        bad = await asyncio.gather(*(self.first_bad(e, s) for e, s in zip(played, courses, strict=True)))
        good = [
            step
            for episode, steps, k in zip(played, courses, bad, strict=True)
            for step in (steps if episode.correct else steps[: k or 0])
            if episode.failure is None
        ]
        chosen = seeds.generator(rollouts.key, PRACTICE).permutation(len(good))[: self.practised]
        made = await asyncio.gather(
            *(
                rollouts.play(REPLIES + number * self.replies + k, self._reply(good[i], number, k))
                for number, i in enumerate(sorted(chosen.tolist()))
                for k in range(self.replies)
            )
        )
        noted = [
            replace(e, notes={**e.notes, BAD: None if k is None else steps[k].spans})
            for e, steps, k in zip(played, courses, bad, strict=True)
        ]
        return [*noted, *(e for found in made for e in found)]

    def _course(self, steps: list[Step]) -> Rollout:
        """One attempt, which leaves its steps."""

        async def rollout(task: Task, line: Conversation) -> Episode:
            world = line.environment()
            try:
                said: Any = await opening(task, world)
                while said is not None:
                    line.user(said)
                    said = await self._step(line, world, steps)
            finally:
                if world is not None:
                    await turns.close(world)
            return line.done()

        return rollout

    async def _step(self, line: Conversation, world: Environment | None, steps: list[Step]) -> str | None:
        before = line.fork(len(steps))
        best = await turns.ask(world, EXPERT) if world is not None and self.writer is None else None
        text = await line.reply(MOVE)
        steps.append(Step(before, text, (len(before.spans), len(line.spans)), str(best or "")))
        return None if cut_off(line) else await carried_out(line, world, text)

    async def first_bad(self, episode: Episode, steps: Sequence[Step]) -> int | None:
        """The number of the first bad step of an attempt that failed; None where none is known."""
        if episode.failure is not None or episode.correct or not steps:
            return None
        if len(steps) == 1:
            return 0
        if self.writer is None:
            parted = (s.expert and not same_action(s.text, s.expert) for s in steps)
            return next((k for k, other in enumerate(parted) if other), None)
        log = "\n".join(f"{k}. {s.text}" for k, s in enumerate(steps, 1))
        asked = JUDGE.format(question=episode.task.prompt[-1].content, log=log)
        found = re.search(r"\d+", await self.writer.draft(steps[0].before, (Message("user", asked),)))
        number = int(found[0]) if found else 0
        return number - 1 if 1 <= number <= len(steps) else None

    def _reply(self, step: Step, number: int, k: int) -> Rollout:
        """A reply where a good step was taken."""

        async def rollout(task: Task, conversation: Conversation) -> Episode:
            line = step.before.fork(1000 + k)
            text = await line.reply(PRACTICE)
            good, alike = command_of(step.text), same_action(text, step.text)
            line.verdict(Verdict(float(alike), alike))
            return replace(line, index=conversation.index).done(**{PRACTICE: (number, good)})

        return rollout

    def observe(self, groups: Sequence[Group], signals: Sequence[Signal], context: Any = None) -> None:
        every = [e for g in groups for e in g.episodes]
        tried = [e for e in every if PRACTICE not in e.notes]
        self.last = {
            "practised": (len(every) - len(tried)) / max(1, len(every)),
            "bad": float(np.mean([e.notes.get(BAD) is not None for e in tried])) if tried else 0.0,
        }

    def report(self) -> Mapping[str, float]:
        """Of the last step: the share of episodes that are practised replies, and of the attempts those with a bad step."""
        return self.last


# ---- reward, credit, objective ---------------------------------------------------------------------------------------


def as_good_steps() -> Reward:
    """Of a practised reply r, in [0, 2]; of an attempt its verdict."""

    def reward(episode: Episode) -> dict[str, float]:
        if PRACTICE in episode.notes:
            return {"reward": likeness(command_of(episode.text), episode.notes[PRACTICE][1])}
        return verdict()(episode)

    return reward


@writes("policy", ADVERSE)
def practice_and_bad_steps() -> Credit:
    """A = (r - mean r) / (std r + 1e-4) among the replies to one step, and among attempts that nobody judged; `ADVERSE` on a first bad step."""

    def credit(groups: Sequence[Group], context: Context) -> list[Signal]:
        signals: list[Signal] = []
        for group in groups:
            alike: dict[Any, list[Episode]] = {}
            for episode in group.episodes:
                if PRACTICE in episode.notes:
                    alike.setdefault(int(episode.notes[PRACTICE][0]), []).append(episode)
                elif BAD not in episode.notes:
                    alike.setdefault(None, []).append(episode)
                elif episode.notes[BAD] is not None:
                    signals.append(_bad(episode))
            parts = [Group(group.task, tuple(found)) for found in alike.values()]
            signals += assigned(parts, [standardised(p.rewards) for p in parts])
        return signals

    return credit


def _bad(episode: Episode) -> Signal:
    first, end = episode.notes[BAD]
    spans = episode.spans[:end]
    turn = replace(episode, spans=spans)
    on = turn.sampled & (np.arange(len(turn.tokens)) >= sum(len(s) for s in spans[:first]))
    return Signal(turn, laid(on, -1.0), {ADVERSE: on.astype(np.float32)})


def practice_less_bad(
    clip_low: Low = 0.2,
    clip_high: High = 0.2,
    kl_weight: KLWeight = 0.04,
    adverse_weight: Annotated[float, Setting("weight of the loss on first bad steps", low=0)] = 0.2,
) -> Objective:
    """PPO's clip, a mean over the tokens of a reply; + kl_weight x KL to the start; + adverse_weight x L_AI, a mean over tokens."""

    def loss(out: Outputs, batch: Batch) -> TokenLoss:
        return F.softplus(out.logp - batch.extras["reference"])

    base = clipped(clip_low, clip_high, kl_weight=kl_weight)
    if not adverse_weight:
        return base + objective(silent={ADVERSE})
    term = Term(ADVERSE, loss, per_token, weight=ADVERSE, coefficient=adverse_weight)
    return base + objective(term, reads={"reference"})


# ---- the recipe ------------------------------------------------------------------------------------------------------


def _played(*said: str, samples: int = 2, **settings: Any) -> list[Episode]:
    """Attempts at a question whose answer is 7, and what was practised."""
    named = {f"group_rollout.{k}": v for k, v in settings.items()}
    return collected(RECIPE, said, None, named, samples, example_question())


def _signals() -> list[float]:
    """Of every signal its advantages, and its weights on bad steps, end to end."""
    (whole,) = example_answers((0.0, (5, 6))).episodes
    judged = replace(whole, notes={BAD: (1, 2)})
    tried = [
        replace(example_episode(r), notes={PRACTICE: (n, "go")}) for r, n in ((2.0, 0), (1.0, 0), (1.0, 1))
    ]
    unjudged = replace(whole, notes={BAD: None})
    made = given_stage(RECIPE, "credit")([Group(EXAMPLE_TASK, (judged, *tried, unjudged))], GivenContext())
    return [float(v) for s in made for v in (*s.advantage, *s.weights.get(ADVERSE, 0 * s.advantage))]


A = 0.5 / 0.5001

RECIPE: Recipe = Recipe(
    name="seagent",
    base=GRPO,
    paper=Paper(
        "SEAgent: Self-Evolving Computer Use Agent with Autonomous Learning from Experience",
        "2508.04700",
        2025,
    ),
    idea="In a failed attempt most steps may have been right, and one spoilt it. A judge says which one. What was good is practised again, step by step, with a "
    "reward for how like the good step a reply is; the step that spoilt an attempt is made less likely, the more so the likelier it became.",
    equation="r = 1[kind] + BLEU_4;  L = L_GRPO + 0.2 mean_t - log sigmoid(- log pi / pi_start) over first bad steps",
    departures=(
        "the judge is the world's scripted expert (a step is bad where it would have done something else), or a model; the paper trains one on screens, which also finds steps "
        "that are redundant",
        "without the paper's curriculum, a model that reads a manual which it keeps and writes harder tasks: levels of the run's worlds are drawn by a curriculum such as "
        "`seagent+target_difficulty`",
        "an action is a line of words, its first word the kind; positions on a screen, and what is like them, do not arise",
        "practised steps are those of this step's attempts, replied to at once, GUESS: two of a task, four replies each; in the paper of a phase's, eight each",
        "the weight of the KL is TRL's default of that time, 0.04, as the released script sets none",
    ),
    stages={
        "group_rollout": stage(Practised),
        "reward": stage(as_good_steps),
        "credit": stage(practice_and_bad_steps),
        "objective": stage(practice_less_bad),
    },
    claim="With the loss on first bad steps these are repeated less often, and as many tasks are solved in fewer steps of training.",
    manipulation=(
        Manipulated("one attempt in ten has a first bad step", r"group_rollout\.bad", 0.1),
        Manipulated("and one episode in ten is practice", r"group_rollout\.practised", 0.1),
    ),
    examples=(
        ByHand(
            "BLEU: the same; of 5 letters 4 agree: (4/5 3/4 2/3 1/2)^(1/4); shorter: e^(1 - 5/4); too short for four letters",
            lambda: [
                bleu("abcde", "abcde"),
                bleu("abcdx", "abcde"),
                bleu("abcd", "abcde"),
                bleu("abc", "abc"),
            ],
            [1, (4 / 5 * 3 / 4 * 2 / 3 / 2) ** 0.25, math.exp(-0.25), 0],
        ),
        ByHand("another kind", lambda: likeness("go north", "take north"), 0),
        ByHand("the same; nothing to act on", lambda: [likeness(t, t) for t in ("go north", "look")], [2, 1]),
        ByHand(
            "one right, one wrong: the wrong one is a bad step, and of the right one both replies are practised; 7 again 1, 8 another kind",
            lambda: [
                [e.reward, e.notes.get(BAD) is not None, PRACTICE in e.notes]
                for e in _played("7", "8", "7", "8", step_replies=2)
            ],
            [[1, 0, 0], [0, 1, 0], [1, 0, 1], [0, 0, 1]],
        ),
        ByHand("nothing practised: attempts as they are", lambda: len(_played("7", "8", practised=0)), 2),
        ByHand(
            "a bad step of two tokens; replies to two steps, of which the second has one; an attempt without a bad step",
            _signals,
            [0, -1, -1, 0, 1, 1, A, 0, -A, 0, 0, 0],
        ),
        OffPolicy(
            "the clip on two tokens of one reply, and a bad step of two tokens twice and half as likely as at the start",
            ratio=(1.5, 0.5, 2.0, 0.5),
            advantage=(1.0, -1.0, -1.0, -1.0),
            lengths=(2, 2),
            weights={"policy": (1, 1, 0, 0), ADVERSE: (0, 0, 1, 1)},
            extras={"reference": (-1.0, -1.0, -1.0, -1.0)},
            settings={"objective.kl_weight": 0.0},
            loss=(-1.2 + 0.8) / 2 + 0.2 * (math.log(3) + math.log(1.5)) / 2,
            gradient=(0, 0, 0.2 * (2 / 3) / 2, 0.2 * (1 / 3) / 2),
        ),
        Reduction(
            "nothing practised or judged: GRPO with this KL",
            "grpo",
            {"group_rollout.practised": 0, "objective.adverse_weight": 0.0},
            {"objective.kl_weight": 0.04},
        ),
    ),
)
