"""ThinkTuning: a teacher's remark, written into the student's own answer, is learnt with it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor

from etude import seeds
from etude.batch import Batch
from etude.credit.group import standardised
from etude.credit.imitate import tagged
from etude.models.outputs import Outputs
from etude.objective.policy import Dual, High, Low, MeanOver
from etude.objective.terms import MEANS, Objective, Term, TokenLoss, log_ratio, objective, surrogate
from etude.recipe import ByHand, Paper, Recipe, Reduction
from etude.rollout.attempts import reworded
from etude.rollout.conversation import Conversation
from etude.rollout.speakers import Address, Longest, Speaker, Who
from etude.settings import Setting, stage
from etude.types import Episode, Group, Signal, Task

GUIDANCE = "guidance"


ASK = (
    "{question}\n\nA student's answer:\n{answer}\n\nGo on in the student's own voice. {style} "
    "Say whether the answer is right and why, then lead on to the right answer."
)


STYLES = {
    "self-conflict": "Doubt it: 'Wait, that cannot be, because ...'",
    "self-agreement": "Confirm what holds: 'Yes, this fits, since ...'",
    "self-critic": "Criticise it step by step: 'Let me check. The first step ...'",
    "self-consultation": "Ask and answer yourself: 'What if I try it another way? ...'",
}


def share_at(progress: float, begin: float, end: float, until: float, cut: float) -> float:
    """Linear from `begin` to `end` over the first `until` of the run; 0 from where it falls below `cut`."""
    part = min(1.0, progress / until) if until else 1.0
    share = begin + (end - begin) * part
    return share if share >= cut and part < 1 else 0.0


class Guided:
    """Every player on its own; a share of the answers, drawn by key, is continued by the teacher inside the same
    turn (span "guidance") before it is judged as a whole (ThinkTuning, arXiv 2508.07616)."""

    def __init__(
        self,
        begin: Annotated[float, Setting("share of answers that are guided at first", low=0, high=1)] = 0.1,
        end: Annotated[float, Setting("share towards which it falls", low=0, high=1)] = 0.01,
        until: Annotated[float, Setting("share of the run over which it falls", low=0, high=1)] = 1 / 3,
        cut: Annotated[float, Setting("share below which nobody is guided any more", low=0, high=1)] = 0.05,
        teacher: Who = "start",
        goes_on: Annotated[bool, Setting("the student writes on after the teacher")] = False,
        address: Address = "",
        longest: Longest = None,
    ) -> None:
        self.speaker = Speaker(teacher, address, longest)
        self.reads, self.goes_on = self.speaker.reads, goes_on
        self.begin, self.end, self.until, self.cut = begin, end, until, cut

    async def __call__(self, rollouts: Any) -> list[Episode]:
        share = share_at(rollouts.progress, self.begin, self.end, self.until, self.cut)
        drawn = [seeds.key(rollouts.key, "guided", i) / 2**63 < share for i in range(rollouts.samples)]
        jobs = [rollouts.play(i, self.guided if yes else None) for i, yes in enumerate(drawn)]
        return [e for found in await asyncio.gather(*jobs) for e in found]

    async def guided(self, task: Task, conversation: Conversation) -> Episode:
        """An answer, the teacher's words after it, and one verdict on both."""
        conversation.user(task.prompt)
        answer = await conversation.reply()
        style = list(STYLES.values())[seeds.key(conversation.key, "style") % len(STYLES)]
        asked = reworded(
            task.prompt, ASK.format(question=task.prompt[-1].content, answer=answer, style=style)
        )
        words = await self.speaker.words(conversation, asked, greedy=True)
        renderer = conversation.generator.renderer
        last = conversation.spans[-1]
        if conversation.stop == "end" and last.logp is not None:  # the turn goes on
            conversation.spans[-1] = replace(last, tokens=last.tokens[:-1], logp=last.logp[:-1])
        tokens = renderer.tokenizer.encode("\n" + words)
        if not self.goes_on:
            tokens = np.append(tokens, renderer.stops[:1]).astype(np.int32)
        conversation.force_prefix(tokens, tag=GUIDANCE)
        more = await conversation.reply() if self.goes_on else ""
        conversation.stop = "end" if not self.goes_on else conversation.stop
        await conversation.check(f"{answer}\n{words}{more}")
        return conversation.done()


def both_voices(
    bound: Annotated[float, Setting("bound on |A|", low=0.1)] = 4.0,
):
    """GRPO's advantage, bounded, on the student's tokens and on the teacher's. Extra `guidance`: 1 on the latter
    (ThinkTuning, arXiv 2508.07616)."""

    def credit(groups: Sequence[Group], context: Any = None) -> list[Signal]:
        signals = []
        for group in groups:
            for episode, a in zip(group.episodes, standardised(group.rewards), strict=True):
                theirs = tagged(episode, GUIDANCE)
                on = (episode.sampled | theirs).astype(np.float32)
                row = on * np.float32(np.clip(a, -bound, bound))
                extras = {GUIDANCE: theirs.astype(np.float32)}
                signals.append(Signal(episode, row, {"policy": on}, extras))
        return signals

    return credit


def taught(p: Tensor, advantage: Tensor, slack: float, rare: float) -> Tensor:
    """p / (sg[p] + slack), its denominator kept in [0.001, 1]; p / sg[p] where blame falls on a rare token."""
    soft = p / (p.detach() + slack).clamp(1e-3, 1.0)
    return torch.where((advantage < 0) & (p < rare), p / p.detach().clamp(min=1e-20), soft)


def clipped_and_taught(
    low: Low = 0.2,
    high: High = 0.2,
    dual: Dual = 3.0,
    slack: Annotated[
        float, Setting("g, added to sg[pi] below a teacher's token", low=-0.1, high=0.1)
    ] = -0.001,
    rare: Annotated[
        float, Setting("probability below which blame takes the plain ratio", low=0, high=1)
    ] = 0.01,
    mean: MeanOver = "token",
) -> Objective:
    """PPO's clip on the student's tokens, -A pi / (sg[pi] + g) on the teacher's (ThinkTuning, arXiv 2508.07616)."""

    def loss(out: Outputs, batch: Batch) -> TokenLoss:
        own = surrogate(log_ratio(out, batch).exp(), batch.advantage, low, high, dual)
        theirs = -batch.advantage * taught(out.logp.exp(), batch.advantage, slack, rare)
        return torch.where(batch.extras["guidance"] > 0, theirs, own)

    return objective(Term("policy", loss, MEANS[mean], proportional=True))


def _gradient(p: float, advantage: float, slack: float) -> float:
    """Of A times the teacher's term by log pi, at probability p."""
    logp = torch.tensor(p, dtype=torch.float64).log().requires_grad_()
    term = advantage * taught(logp.exp(), torch.tensor(advantage), slack, 0.01)
    return float(torch.autograd.grad(term, logp)[0])


RECIPE = Recipe(
    name="think_tuning",
    n=105,
    paper=Paper("ThinkTuning: Instilling Cognitive Reflections without Distillation", "2508.07616", 2025),
    idea="To a few answers a teacher no bigger than the student adds, in the student's voice, whether they are right and why, and leads on. "
    "The whole is judged and reinforced like any other answer, the teacher's words included. "
    "The teacher withdraws in the first third of the run; what stays is the habit of reflecting.",
    equation="student: PPO's clip with GRPO's A;  teacher: - A pi / (sg[pi] + g), or - A pi / sg[pi] where A < 0 and pi < 0.01",
    departures=(
        "g is the constant -0.001 that the released code comes to (its clamp has its bounds the wrong way round)",
        "the denominator is kept at 0.001 or more",
        "the teacher is shown one of four styles as an instruction, not as few-shot examples",
        "GUESS: nothing is sampled after the teacher's words (--set gather.goes_on=true lets the student write on)",
        "the attempts' own rollout is a single answer: guided ones do not follow a replaced rollout stage",
    ),
    stages={
        "group_rollout": stage(Guided),
        "credit": stage(both_voices),
        "objective": stage(clipped_and_taught),
    },
    needs=("text",),
    claim="More reflective phrases and higher accuracy than GRPO, from a base that never reflects.",
    examples=(
        ByHand(
            "from 0.1 to 0.01 over a third, cut at 0.05",
            lambda: [share_at(p, 0.1, 0.01, 1 / 3, 0.05) for p in (0, 1 / 6, 0.2, 0.5)],
            [0.1, 0.055, 0, 0],
        ),
        ByHand(
            "g = 0: the gradient is A, whatever the probability",
            lambda: [_gradient(p, 2.0, 0.0) for p in (0.3, 0.9)],
            [2, 2],
        ),
        ByHand("g = -0.001 at probability 0.5", lambda: _gradient(0.5, 1.0, -0.001), 0.5 / 0.499),
        ByHand("blame of a rare token", lambda: _gradient(0.005, -1.0, -0.001), -1),
        Reduction(
            "nobody is guided: GRPO", "grpo", {"group_rollout.begin": 0.0}, {"objective.mean": "token"}
        ),
    ),
)
