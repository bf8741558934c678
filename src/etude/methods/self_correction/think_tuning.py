"""ThinkTuning: a teacher's remark, written into the student's own answer, is learnt with it.

To a share of the answers a teacher no bigger than the student adds, in the student's voice, whether they are right and
why, and leads on. The whole is checked and reinforced like any other answer, the teacher's tokens with a ratio of their
own. The share falls to nothing over the first third of the run. ThinkTuning, arXiv 2508.07616."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import numpy as np
import torch

from etude import seeds
from etude.batch import Batch
from etude.channels import writes
from etude.credit.group import standardised
from etude.credit.imitate import tagged
from etude.fixtures.attempts import advantages_of, credited_signals, example_attempts
from etude.models.outputs import Outputs
from etude.objective.policy import Dual, High, Low, MeanOver
from etude.objective.terms import MEANS, Objective, Term, TokenLoss, log_ratio, objective, surrogate
from etude.recipe import ByHand, Manipulated, OffPolicy, Paper, Recipe, Reduction
from etude.rollout.attempts import reworded
from etude.rollout.conversation import Conversation
from etude.rollout.group_rollout import GroupRollout
from etude.rollout.writers import Address, Longest, WhoWrites, Writer
from etude.settings import Setting, stage
from etude.stages import Context, Credit
from etude.types import Episode, Group, Signal, Span, Task

GUIDANCE = "guidance"
"""Tag of the teacher's words, and the extra that is 1 on them."""

# ---- rollout -----------------------------------------------------------------------------------------

ASK_FOR_GUIDANCE = (
    "{question}\n\nA student's answer:\n{answer}\n\nGo on in the student's own voice. {style} "
    "Say whether the answer is right and why, then lead on to the right answer."
)
STYLES = {
    "self-conflict": "Doubt it: 'Wait, that cannot be, because ...'",
    "self-agreement": "Confirm what holds: 'Yes, this fits, since ...'",
    "self-critic": "Criticise it step by step: 'Let me check. The first step ...'",
    "self-consultation": "Ask and answer yourself: 'What if I try it another way? ...'",
}


def share_at(progress: float, first: float, last: float, end_at: float, least: float) -> float:
    """Linear from `first` to `last` over the first `end_at` of the run; 0 once below `least`, and after `end_at`."""
    part = min(1.0, progress / end_at) if end_at else 1.0
    share = first + (last - first) * part
    return share if share >= least and part < 1 else 0.0


class Guided:
    """A share of a group's answers, drawn by key, is continued by the teacher inside the same turn (span `GUIDANCE`)
    before it is checked as a whole."""

    def __init__(
        self,
        first_share: Annotated[
            float, Setting("share of answers that are guided at first", low=0, high=1)
        ] = 0.1,
        last_share: Annotated[float, Setting("share towards which it falls", low=0, high=1)] = 0.01,
        end_at: Annotated[float, Setting("share of the run at which its fall ends", low=0, high=1)] = 1 / 3,
        least_share: Annotated[float, Setting("share below which no answer is guided", low=0, high=1)] = 0.05,
        writer: WhoWrites = "start",
        goes_on: Annotated[bool, Setting("the student writes on after the teacher")] = False,
        address: Address = "",
        longest: Longest = None,
    ) -> None:
        self.teacher = Writer(writer, address, longest)
        self.reads, self.goes_on = self.teacher.reads, goes_on
        self.schedule = (first_share, last_share, end_at, least_share)

    async def __call__(self, rollouts: GroupRollout) -> list[Episode]:
        share = share_at(rollouts.progress, *self.schedule)
        drawn = [seeds.key(rollouts.key, "guided", i) / 2**63 < share for i in range(rollouts.samples)]
        jobs = [rollouts.play(i, self.guided if yes else None) for i, yes in enumerate(drawn)]
        return [e for found in await asyncio.gather(*jobs) for e in found]

    async def guided(self, task: Task, conversation: Conversation) -> Episode:
        """An answer, the teacher's words after it, and one verdict on both."""
        conversation.user(task.prompt)
        answer = await conversation.reply()
        style = list(STYLES.values())[seeds.key(conversation.key, "style") % len(STYLES)]
        question = task.prompt[-1].content
        asked = reworded(task.prompt, ASK_FOR_GUIDANCE.format(question=question, answer=answer, style=style))
        words = await self.teacher.draft(conversation, asked, greedy=True)
        renderer = conversation.generator.renderer
        last = conversation.spans[-1]
        if conversation.ended and last.logp is not None:  # the turn goes on
            conversation.spans[-1] = replace(last, tokens=last.tokens[:-1], logp=last.logp[:-1])
        tokens = renderer.tokenizer.encode("\n" + words)
        if not self.goes_on:
            tokens = np.append(tokens, renderer.stops[:1]).astype(np.int32)
        conversation.force_prefix(tokens, tag=GUIDANCE)
        more = await conversation.reply() if self.goes_on else ""
        conversation.stop = "end" if not self.goes_on else conversation.stop
        await conversation.check(f"{answer}\n{words}{more}")
        return conversation.done(guided=True)


# ---- credit ------------------------------------------------------------------------------------------


@writes("policy", extras=(GUIDANCE,))
def student_and_teacher(
    advantage_bound: Annotated[float, Setting("bound on |A|", low=0.1)] = 4.0,
) -> Credit:
    """GRPO's advantage, bounded, on the student's tokens and on the teacher's. Extra `GUIDANCE`: 1 on the latter."""

    def credit(groups: Sequence[Group], context: Context) -> list[Signal]:
        signals = []
        for group in groups:
            for episode, a in zip(group.episodes, standardised(group.rewards), strict=True):
                teacher = tagged(episode, GUIDANCE)
                on = (episode.sampled | teacher).astype(np.float32)
                row = on * np.float32(np.clip(a, -advantage_bound, advantage_bound))
                extras = {GUIDANCE: teacher.astype(np.float32)}
                signals.append(Signal(episode, row, {"policy": on}, extras))
        return signals

    return credit


# ---- loss --------------------------------------------------------------------------------------------


def clipped_and_taught(
    clip_low: Low = 0.2,
    clip_high: High = 0.2,
    dual_clip: Dual = 3.0,
    slack: Annotated[
        float, Setting("g, added to sg[pi] below a teacher's token", low=-0.1, high=0.1)
    ] = -0.001,
    rare: Annotated[
        float, Setting("probability below which blame takes the plain ratio", low=0, high=1)
    ] = 0.01,
    mean: MeanOver = "token",
) -> Objective:
    """PPO's clip on the student's tokens. On the teacher's, which were not sampled, -A pi / (sg[pi] + g), its denominator
    kept in [0.001, 1]; -A pi / sg[pi] where A < 0 and pi < `rare`."""

    def loss(out: Outputs, batch: Batch) -> TokenLoss:
        student = surrogate(log_ratio(out, batch).exp(), batch.advantage, clip_low, clip_high, dual_clip)
        p = out.logp.exp()
        soft = p / (p.detach() + slack).clamp(1e-3, 1.0)
        plain = p / p.detach().clamp(min=1e-20)
        ratio = torch.where((batch.advantage < 0) & (p < rare), plain, soft)
        return torch.where(batch.extras[GUIDANCE] > 0, -batch.advantage * ratio, student)

    return objective(Term("policy", loss, MEANS[mean], proportional=True), extras={GUIDANCE})


# ---- the recipe --------------------------------------------------------------------------------------


def _pair(**settings: float) -> list[Signal]:
    """Credit of a right answer whose end the teacher wrote, and of a wrong one of the student's own."""
    taught, own = example_attempts(1.0), example_attempts(0.0)
    taught = replace(
        taught, spans=(*taught.spans, Span("assistant", np.array([8, 9], np.int32), tag=GUIDANCE))
    )
    return credited_signals(RECIPE, [taught, own], settings={f"credit.{k}": v for k, v in settings.items()})


E_1 = math.exp(-1)  # what pi_old gave every token of the rows below

RECIPE = Recipe(
    name="think_tuning",
    paper=Paper("ThinkTuning: Instilling Cognitive Reflections without Distillation", "2508.07616", 2025),
    published_lr=1e-6,
    idea="To a few answers a teacher no bigger than the student adds, in the student's voice, whether they are right and why, and leads on. "
    "The whole is judged and reinforced like any other answer, the teacher's words included. "
    "The teacher withdraws in the first third of the run; what stays is the habit of reflecting.",
    equation="student: PPO's clip with GRPO's A;  teacher: - A pi / (sg[pi] + g), or - A pi / sg[pi] where A < 0 and pi < 0.01",
    departures=(
        "g is the constant -0.001 that the released code comes to (its clamp has its bounds the wrong way round)",
        "the denominator is kept at 0.001 or more",
        "the teacher is shown one of four styles as an instruction, not as few-shot examples",
        "GUESS: nothing is sampled after the teacher's words (--set group_rollout.goes_on=true lets the student write on)",
        "the attempts' own rollout is a single answer: guided ones do not follow a replaced rollout stage",
    ),
    stages={
        "group_rollout": stage(Guided),
        "credit": stage(student_and_teacher),
        "objective": stage(clipped_and_taught),
    },
    needs=("text",),
    claim="More reflective phrases and higher accuracy than GRPO, from a base that never reflects.",
    manipulation=(Manipulated("a tenth of the guided attempts are right", "noted/guided/correct", 0.1),),
    examples=(
        ByHand(
            "from 0.1 to 0.01 over a third, cut at 0.05",
            lambda: [share_at(p, 0.1, 0.01, 1 / 3, 0.05) for p in (0, 1 / 6, 0.2, 0.5)],
            [0.1, 0.055, 0, 0],
        ),
        ByHand(
            "the student's tokens: 1 and 0 minus 1/2 over 0.5 + 1e-4",
            lambda: advantages_of(_pair(), "attempt 1"),
            [0.5 / 0.5001, -0.5 / 0.5001],
        ),
        ByHand("the teacher's tokens", lambda: advantages_of(_pair(), GUIDANCE), [0.5 / 0.5001]),
        ByHand(
            "advantages bounded by 0.7",
            lambda: advantages_of(_pair(advantage_bound=0.7), "attempt 1"),
            [0.7, -0.7],
        ),
        ByHand(
            "the extra marks the teacher's two tokens, after two of the prompt and one of the student",
            lambda: _pair()[0].extras[GUIDANCE],
            [0, 0, 0, 1, 1],
        ),
        OffPolicy(
            "student: praise beyond the clip and within it, blame beyond it, within it, and beyond the dual clip",
            ratio=(1.5, 1.1, 0.5, 0.9, 4.0),
            advantage=(1.0, 1.0, -1.0, -1.0, -1.0),
            extras={GUIDANCE: (0, 0, 0, 0, 0)},
            loss=(-1.2 - 1.1 + 0.8 + 0.9 + 3.0) / 5,
            gradient=(0, -1.1 / 5, 0, 0.9 / 5, 0),
        ),
        OffPolicy(
            "teacher, not clipped: p = 0.5 of both signs, and blame of p = 0.005: there A p / p, else A p / (p - 0.001)",
            ratio=(0.5 / E_1, 0.5 / E_1, 0.005 / E_1),
            advantage=(1.0, -1.0, -1.0),
            extras={GUIDANCE: (1, 1, 1)},
            loss=(-0.5 / 0.499 + 0.5 / 0.499 + 1) / 3,
            gradient=(-0.5 / 0.499 / 3, 0.5 / 0.499 / 3, 1 / 3),
        ),
        OffPolicy(
            "teacher: praise of p = 0.005 is divided by 0.004, of p = 0.0005 by 0.001",
            ratio=(0.005 / E_1, 0.0005 / E_1),
            advantage=(1.0, 1.0),
            extras={GUIDANCE: (1, 1)},
            loss=(-1.25 - 0.5) / 2,
            gradient=(-1.25 / 2, -0.5 / 2),
        ),
        Reduction(
            "no answer is guided: GRPO",
            "grpo",
            {"group_rollout.first_share": 0.0},
            {"objective.mean": "token"},
        ),
    ),
)
