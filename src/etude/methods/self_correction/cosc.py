"""CoSC, a chain of self-correction: write a program, see its output, check both, and answer or write it anew.

All of it is one conversation: a program, what it printed, the policy's own check of the program and of the output, and its
conclusion, which is the answer or the word that it must be revised. Chains that end right are imitated, without what the
interpreter said. Embedding Self-Correction as an Inherent Ability in Large Language Models for Enhanced Mathematical Reasoning,
arXiv 2410.10735."""

from __future__ import annotations

import asyncio
import re
from typing import Annotated

from etude.methods.imitation.rft import RECIPE as RFT
from etude.recipe import ByHand, Manipulated, Paper, Recipe, Reduction
from etude.rollout.attempts import below
from etude.rollout.basic import single
from etude.rollout.conversation import Conversation
from etude.rollout.second import worded
from etude.settings import Setting, stage
from etude.stages import Rollout
from etude.tools.shipped import python
from etude.tools.tool import ToolError
from etude.types import Episode, Task

PROGRAM = "Write a Python program in a ```python block that prints the answer. Write nothing after it."
VERIFY = (
    "The output:\n{output}\n\nCheck first whether the program does what the question asks, then whether the output makes sense as its answer. "
    "If both hold, give the answer to the question. Otherwise say in the last line: Revise."
)
AGAIN = "Write the program anew."
NOTHING = "There was no program to run."
PROGRAMS = "programs"
"""Note: how many programs were written."""

_BLOCK = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)(?:```|$)", re.DOTALL)


def output_of(text: str) -> str:
    """What the last program in `text` printed, or its error. It runs in the sandbox."""
    blocks = _BLOCK.findall(text)
    if not blocks:
        return NOTHING
    try:
        return python(blocks[-1]).strip() or "(nothing was printed)"
    except ToolError as error:
        return str(error)


def to_be_revised(text: str) -> bool:
    """Whether the last line of a conclusion asks for another program."""
    lines = text.strip().splitlines() or [""]
    return re.search(r"\brevise\b", lines[-1], re.IGNORECASE) is not None


def chain(
    programs: Annotated[int, Setting("programs written at most; 0: an answer at once", low=0, high=16)] = 3,
    program_request: Annotated[str, Setting("how a program is asked for")] = PROGRAM,
    verify_request: Annotated[str, Setting("how the check is asked for, after the {output}")] = VERIFY,
    once_more: Annotated[str, Setting("how the next solution is asked for")] = AGAIN,
) -> Rollout:
    """Programs, their outputs and the policy's conclusions by turns, to the first that is not to be revised; its answer counts."""
    ask, verify, again = worded(program_request), worded(verify_request, "output"), worded(once_more)
    at_once = single()

    async def rollout(task: Task, conversation: Conversation) -> Episode:
        if not programs or task.environment is not None:
            found = await at_once(task, conversation)
            assert isinstance(found, Episode)
            return found
        conversation.user(below(task.prompt, ask))
        for number in range(1, programs + 1):
            written = await conversation.reply(f"program {number}")
            output = await asyncio.to_thread(output_of, written)
            conversation.user(verify.format(output=output))
            concluded = await conversation.reply(f"conclusion {number}")
            if not to_be_revised(concluded) or number == programs:
                break
            conversation.user(again)
        await conversation.check(concluded)
        return conversation.done(**{PROGRAMS: [number]})

    return rollout


RECIPE: Recipe = Recipe(
    name="cosc",
    base=RFT,
    paper=Paper(
        "Embedding Self-Correction as an Inherent Ability in Large Language Models for Enhanced Mathematical Reasoning",
        "2410.10735",
        2024,
    ),
    idea="The policy writes a program, sees what it prints, and checks both against the question before it answers; where the check fails it "
    "writes another. Chains that end right are imitated, so that the check becomes a habit. What the interpreter printed is read, not learnt.",
    equation="(p_1, o_1, v_1, c_1, ..., c_n), o_i = run(p_i);  L = - mean_t log pi over p, v and c of chains whose answer is right",
    departures=(
        "the paper's first phase, 37k chains of a stronger model, is not here: requests ask for the form, and `sft` on such chains is its place; "
        "this is the second, in which the model learns from its own",
        "check and conclusion are one reply; outputs and requests are turns of the user's",
        "GUESS: three programs at most; the loss leaves out the outputs",
        "a round is a step, from the current weights, as in rft",
    ),
    confidence="memory",
    stages={"rollout": stage(chain)},
    needs=("text",),
    claim="After training, chains of more than one program mend a share of the errors of the first, which they did not before.",
    manipulation=(Manipulated("one chain in ten has a second program", "noted/programs", 1.1, read="max"),),
    examples=(
        ByHand(
            "revised only where the last line says so",
            lambda: [
                to_be_revised(t) for t in ("It is wrong.\nRevise.", "I need not revise.\n7", "", "REVISE")
            ],
            [1, 0, 0, 1],
        ),
        ByHand("nothing to run", lambda: output_of("7") == NOTHING, True),
        Reduction("no programs: rejection-sampling fine-tuning", "rft", {"rollout.programs": 0}),
    ),
)
