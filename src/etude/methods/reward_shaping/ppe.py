"""Prior prompt engineering, pPE (arXiv 2505.14157): the same reinforcement, under another instruction.

Before training one decides what stands above every question: think, make a plan, write code, recall what is known, or refer to
examples that are not there. The instruction asks for one block in a tag of its own and for the answer in another, the reward pays for
that form as much as for a right answer, and the model is asked in the same way afterwards (`etude eval RUN --with ppe:prior=plan`).
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Annotated

from etude.fixtures.examples import example_episode
from etude.fixtures.inference import answered
from etude.methods.policy_gradient.grpo import RECIPE as GRPO
from etude.recipe import ByHand, Manipulated, Paper, Recipe, Reduction
from etude.rollout.attempts import reworded
from etude.search.session import Answering, Draft, Session, answering
from etude.settings import Setting, stage
from etude.stages import Reward
from etude.tasks.check import Number
from etude.types import Episode, Message, Task

PRIORS = {
    "none": "",
    "think": "reason step by step",
    "plan": "devise a plan and carry it out",
    "code": "write code that reasons about it",
    "knowledge": "recall the facts that bear on it, and use them",
    "examples": "refer to examples that resemble it, and solve them",
}
ABOVE = "First {what}, between <{tag}> and </{tag}>. Then give the answer between <answer> and </answer>.\n\n{question}"

Prior = Annotated[str, Setting("what stands above every question", choices=tuple(PRIORS))]


def prior_prompt(prior: Prior = "think") -> Answering:
    """A reply to the question below the instruction; training sees the instruction, too."""

    async def method(session: Session) -> Draft:
        if prior == "none":
            return await session.draft("sample", 0)
        text = ABOVE.format(what=PRIORS[prior], tag=prior, question=session.question)
        said = reworded(session.prompt, text)
        return await session.draft("sample", 0, said=said, learn=said, tag=prior)

    return answering(method)


def form_and_answer(
    form_share: Annotated[float, Setting("share of the reward that is for the form", low=0, high=1)] = 0.5,
) -> Reward:
    """(1 - s) v + s [exactly one block of the prior's tag, then exactly one of the answer's]. Scores: `form`, 0 or 1, and `outcome`,
    v. ValueError where nothing was judged."""

    def reward(episode: Episode) -> dict[str, float]:
        if episode.verdict is None:
            raise ValueError("the rollout ended without a verdict, so there is nothing to reward")
        form, outcome = float(well_formed(episode.text, asked_for(episode))), episode.verdict.reward
        return {"reward": (1 - form_share) * outcome + form_share * form, "form": form, "outcome": outcome}

    return reward


def asked_for(episode: Episode) -> str:
    """The prior that its rollout put above the question."""
    return next((s.tag for s in episode.spans if s.tag in PRIORS), "none")


def well_formed(text: str, prior: str) -> bool:
    """Whether a reply has the two blocks, once each and in order; any reply, where there is no prior."""
    if prior == "none":
        return True
    marks = re.findall(rf"</?(?:{prior}|answer)>", text)
    return marks == [f"<{prior}>", f"</{prior}>", "<answer>", "</answer>"]


def rewards(*texts: str) -> list[float]:
    """Of replies to a sum that is 7."""
    reward = RECIPE.stages["reward"].build("reward")
    task = Task((Message("user", "3+4?"),), Number("7"), answer="7")
    below = example_episode(0.0)
    below = replace(
        below, spans=tuple(replace(s, tag="think" if s.role == "assistant" else "") for s in below.spans)
    )
    episodes = [replace(below, task=task, text=t, verdicts=(task.check(t),)) for t in texts]
    return [reward(e)["reward"] for e in episodes]


def _trained_below_the_instruction() -> list[float]:
    found = answered(RECIPE, "<plan>add</plan><answer>7</answer>", settings={"prior": "plan"})
    first = found.episode.spans[0]
    return [
        "between <plan> and </plan>" in found.asked[0],
        found.asked[0].endswith("3+4?<assistant>"),
        len(first.tokens) == len(found.asked[0]),
        float(found.episode.correct),
    ]


RECIPE: Recipe = Recipe(
    name="ppe",
    base=GRPO,
    paper=Paper("Prior Prompt Engineering for Reinforcement Fine-Tuning", "2505.14157", 2025),
    idea="Puts one instruction above every question while the model is trained: think, plan, write code, recall, or refer to examples. "
    "It is kept afterwards. What the instruction asks for becomes how the trained model works, and instructions differ in what comes of them.",
    equation="y ~ pi(. | prior, x);  r = 1/2 [right] + 1/2 [one block of the prior, one answer];  A, L as GRPO",
    confidence="memory",
    stages={"rollout": stage(prior_prompt), "reward": stage(form_and_answer)},
    needs=("text",),
    departures=(
        "the wording of the five instructions is our own",
        "the answer stands in a tag; the paper also wants it boxed",
    ),
    claim="Trained with any of the five it ends above the untrained model that is asked in the same way.",
    manipulation=(Manipulated("attempts differ in form", "score/form", 1.0, read="range"),),
    examples=(
        ByHand(
            "right in form, right without it, wrong in form, two answers, blocks in the wrong order",
            lambda: rewards(
                "<think>3+4</think><answer>7</answer>",
                "7",
                "<think>3+4</think><answer>8</answer>",
                "<think>a</think><answer>7</answer><answer>7</answer>",
                "<answer>7</answer><think>a</think> 7",
            ),
            [1, 0.5, 0.5, 0.5, 0.5],
        ),
        ByHand("asked and trained below the instruction", _trained_below_the_instruction, [1, 1, 1, 1]),
        Reduction(
            "no instruction and nothing for the form: GRPO on single replies",
            "grpo+majority",
            {"rollout.prior": "none", "reward.form_share": 0.0},
            {"rollout.n": 1},
        ),
    ),
)
