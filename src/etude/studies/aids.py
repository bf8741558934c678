"""What did reinforcement learning improve: planning, using what is given, or single steps?

SPARKLE: a problem is asked with nothing beside it, with a plan, with a part of what is needed, and as a chain of subproblems. The
effect of an aid is accuracy with it less accuracy without; what RL changed is the difference of effects. The finding: after RL
given knowledge helps where it hurt before, plans do not help, and subproblem chains stay hard.

On tasks in checked lines the knowledge is the first half of the lines, the plan is the request to make one, and the subproblem
chain is each line given the right ones before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from etude.lab.protocols import PLAN
from etude.recipe import Paper
from etude.rollout.attempts import below, hinted
from etude.rollout.conversation import Conversation
from etude.study.declare import (
    POINTS,
    Arm,
    Defaults,
    Hypothesis,
    Measure,
    Required,
    Study,
    Training,
    further,
    more,
)
from etude.study.subject import Subject
from etude.types import Message, Task


def look(subject: Subject) -> Mapping[str, Any]:
    """Each held-out problem under every aid, `samples` times, chains too."""

    async def aided(task: Task, conversation: Conversation) -> dict[str, float]:
        ways: dict[str, tuple[Message, ...]] = {
            "nothing": task.prompt,
            "knowledge": hinted(task, 2),
            "plan": below(task.prompt, PLAN),
        }
        found = {}
        for i, (name, said) in enumerate(ways.items()):
            branch = conversation.fork(i)
            branch.new_context(said)
            found[name] = float((await branch.check(await branch.reply())).correct)
        return found

    async def chain(task: Task, conversation: Conversation) -> dict[str, float]:
        lines = list(task.meta["steps"])
        encode = conversation.generator.renderer.tokenizer.encode
        rights = []
        for i, line in enumerate(lines):
            branch = conversation.fork(i)
            branch.new_context(task.prompt)
            if i:
                branch.force_prefix(encode("\n".join([*lines[:i], ""])))
            said = (await branch.reply(until="\n")).split("\n")
            rights.append(len(said) > i and said[i].strip() == line)
        return {"steps": sum(rights) / len(rights), "chain": float(all(rights))}

    sampled = subject.noted(aided, samples=subject.samples)
    return {**sampled, **subject.noted(chain, samples=subject.samples)}


STUDY = Study(
    name="aids",
    paper=Paper(
        "Beyond Accuracy: Dissecting Mathematical Reasoning for LLMs Under Reinforcement Learning",
        "2506.04723",
        2025,
    ),
    question="After reinforcement learning, does a model make better use of what it is given?",
    arms=(Arm("untrained"), Arm("grpo", (Training("grpo"),))),
    measures=(
        Measure("nothing", POINTS, "right without an aid", look),
        Measure("knowledge", POINTS, "right with the first half of the lines as a hint", look),
        Measure("plan", POINTS, "right after the request to plan", look),
        Measure("steps", POINTS, "lines that are right after the right ones before them", look),
        Measure("chain", POINTS, "problems all of whose lines are", look),
    ),
    hypotheses=(
        Hypothesis(
            "knowledge is used better",
            "The effect of the hint is larger after GRPO than before.",
            further(
                more("grpo", "knowledge", "grpo", "nothing"),
                more("untrained", "knowledge", "untrained", "nothing"),
            ),
            least=3.0,
            requires=(
                Required(
                    "points that GRPO gains without an aid", more("grpo", "nothing", "untrained"), at_least=5
                ),
            ),
        ),
        Hypothesis(
            "plans do not help",
            "After GRPO a plan does not help.",
            more("grpo", "plan", "grpo", "nothing"),
            3.0,
            "same",
        ),
        Hypothesis(
            "steps are learned",
            "Single steps are more often right after GRPO.",
            more("grpo", "steps", "untrained"),
            2.0,
        ),
        Hypothesis(
            "more than steps",
            "Without an aid GRPO gains more than in chains of subproblems.",
            further(more("grpo", "nothing", "untrained"), more("grpo", "chain", "untrained")),
            least=3.0,
        ),
    ),
    needs=("hints", "steps"),
    defaults=Defaults(
        budget="24-steps",
        problems=150,
        samples=4,
        changes={
            "run.tasks_per_step": "8",
            "run.group_size": "8",
            "run.max_tokens": "96",
            "run.preflight": "2",
            "run.rows": "512",
            "update.lr": "3e-4",
            "update.warmup": "5",
        },
    ),
    departures=(
        "aids are made of checked lines by rule, not annotated by a model",
        "the staged training with partial solutions (PSS) is not part of this study",
    ),
)
