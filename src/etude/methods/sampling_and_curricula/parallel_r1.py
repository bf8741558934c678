"""Parallel-R1: the policy learns when to think along several paths at once, which do not see each other.

Where it writes <Parallel>, several paths go on from there, each by itself; they are joined, it sums them up and goes on. Such thinking is taught
first on easy problems, then rewarded on hard ones: in most steps only the answer counts, in some an answer with parallel paths counts more. Parallel-R1,
arXiv 2509.07980; rewards and limits after the released code (zhengkid/Parallel-R1)."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any

import numpy as np

from etude.fixtures.curricula import ExampleContext, built
from etude.fixtures.examples import example_episode
from etude.fixtures.inference import Spoken, example_question, judged, speaker
from etude.methods.policy_gradient.grpo import RECIPE as GRPO
from etude.objective.policy import clipped
from etude.recipe import ByHand, Manipulated, OffPolicy, Paper, Recipe, Reduction
from etude.rollout.attempts import below
from etude.rollout.conversation import Conversation
from etude.settings import Setting, stage
from etude.stages import Context, Rollout
from etude.types import Episode, Group, Signal, Span, Task

FORK, JOIN = "<Parallel>", "</Parallel>"
PATH, ARRIVED = "<Path>", "</Path>"
PATHS = "paths"
"""The tag of a path, where it was sampled."""

ASK = (
    "Where it helps to look at this in several ways, write <Parallel>; each way is then written between <Path> and </Path>, and what they come "
    "to between <Summary> and </Summary>. Then go on."
)

BLOCK = re.compile(r"<Parallel>(.*?)</Parallel>\s*<Summary>(.*?)</Summary>", re.S)
TAGS = re.compile(r"</?(?:Parallel|Path|Summary)>")


def blocks(text: str) -> int:
    """How many parallel blocks a text holds; 0 where a tag stands anywhere else than in a block of at least two paths that is followed by
    one summary."""
    rest, found = text, 0
    for block in BLOCK.finditer(text):
        paths = re.fullmatch(r"(?:\s*<Path>(?:(?!</?Path>).)*</Path>){2,}\s*", block[1], re.S)
        if not paths or TAGS.search(block[2]) or FORK in block[1]:
            return 0
        found += 1
        rest = rest.replace(block[0], "", 1)
    return 0 if TAGS.search(rest) else found


# ---- rollout ---------------------------------------------------------------------------------------------------------


def forking(
    path_number: Annotated[int, Setting("P, paths of a block", low=2, high=16)] = 2,
    most_blocks: Annotated[int, Setting("blocks in an answer that fork", low=0, high=64)] = 4,
    path_tokens: Annotated[int | None, Setting("longest path; none: run.max_tokens", "tokens", low=1)] = None,
    parallel_request: Annotated[str, Setting("what stands below the question; empty: nothing")] = ASK,
) -> Rollout:
    """One answer. After <Parallel> come `path_number` paths, each sampled from what stood before, without the others; they are joined, and
    the policy goes on. A path is a sequence of its own in training, behind just what it was sampled behind."""

    async def rollout(task: Task, conversation: Conversation) -> Episode:
        conversation.user(below(task.prompt, parallel_request))
        branches: list[Span] = []
        for _ in range(most_blocks):
            await conversation.reply(until=FORK)
            if conversation.stop != "cut":
                break
            before = conversation.context
            taken = await asyncio.gather(
                *(_path(conversation.fork(k), k, path_tokens) for k in range(path_number))
            )
            for opened, path in taken:
                branches += [
                    Span("user", np.concatenate([before, opened.tokens]), restart=True, tag="shared"),
                    path,
                ]
                given = Span("assistant", path.tokens, tag="joined")
                conversation.spans += [replace(opened, tag="joined"), given]
            conversation.interject(f"{JOIN}\n<Summary>", "joined")
        else:
            await conversation.reply()
        await conversation.check(conversation.text)
        conversation.spans += branches
        return conversation.done(blocks=blocks(conversation.text), forks=len(branches) // (2 * path_number))

    return rollout


async def _path(branch: Conversation, k: int, most: int | None) -> tuple[Span, Span]:
    """The words that open a path (not sampled), and the path, which ends with </Path>, the token that ends a reply left out."""
    branch.interject(PATH, "joined")
    opened = branch.spans[-1]
    await branch.reply(PATHS, most, until=ARRIVED)
    path = branch.spans[-1]
    if branch.stop == "cut":
        return opened, path
    if branch.ended:
        path = replace(path, tokens=path.tokens[:-1], logp=None if path.logp is None else path.logp[:-1])
    return opened, path


# ---- reward --------------------------------------------------------------------------------------------------------


class Alternating:
    """+1 for a right answer, `wrong_reward` for a wrong one. In the last `parallel_steps` of every `cycle` steps a right answer with a block
    that is well formed earns 1 + `bonus`."""

    def __init__(
        self,
        cycle: Annotated[int, Setting("steps after which the rewards repeat", "steps", low=1)] = 10,
        parallel_steps: Annotated[int, Setting("of these, steps in which blocks count", "steps", low=0)] = 2,
        bonus: Annotated[float, Setting("what a block adds to a right answer", low=0)] = 0.2,
        wrong_reward: Annotated[float, Setting("of a wrong answer", low=-10, high=0)] = -1.0,
    ) -> None:
        self.cycle, self.parallel_steps, self.bonus, self.wrong = cycle, parallel_steps, bonus, wrong_reward
        self.step = 0
        self.last: dict[str, float] = {}

    def __call__(self, episode: Episode) -> dict[str, float]:
        if episode.verdict is None:
            raise ValueError("the rollout ended without a verdict, so there is nothing to reward")
        used = float(episode.notes.get("blocks", 0) > 0)
        counts = self.step % self.cycle >= self.cycle - self.parallel_steps
        right = 1.0 + self.bonus * used * counts
        return {"reward": right if episode.correct else self.wrong, "parallel": used}

    def observe(self, groups: Sequence[Group], signals: Sequence[Signal], context: Context) -> None:
        self.step = context.step + 1
        made = [e for g in groups for e in g.episodes]
        for name, some in (("right", True), ("wrong", False)):
            used = [e.scores.get("parallel", 0.0) for e in made if e.correct == some]
            self.last |= {f"parallel/{name}": float(np.mean(used))} if used else {}
        forks = [e.notes.get("forks", 0) for e in made]
        self.last |= {"parallel": float(np.mean([f > 0 for f in forks]))} if forks else {}

    def report(self) -> Mapping[str, float]:
        """The share of answers that forked, and of right and wrong ones with well-formed blocks."""
        return dict(self.last)

    def state_dict(self) -> dict[str, Any]:
        return {"step": self.step, "last": dict(self.last)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step, self.last = state["step"], dict(state["last"])


# ---- the recipe -----------------------------------------------------------------------------------------------------

ANSWERED = ("2+2.<Parallel>", "a</Path>", "bc</Path>", "so.</Summary>\n7")


def _played(*replies: str, **settings: Any) -> tuple[Episode, list[str]]:
    """The answer to a question whose answer is 7, and what the policy was asked with, in order."""
    asked: list[str] = []
    task = example_question()
    rollout = built(RECIPE, "rollout", {"parallel_request": "", **settings})
    talk = Conversation(task, speaker(replies, asked=asked), judged, 0)
    return asyncio.run(rollout(task, talk)), asked


def _sequences(episode: Episode) -> list[str]:
    """The sequences that training sees, with what was sampled in brackets."""
    found: list[str] = []
    for span in episode.spans:
        text = Spoken().decode(span.tokens.tolist())
        found += [""] if span.restart or not found else []
        found[-1] += f"[{text}]" if span.sampled else text
    return found


def _forked() -> float:
    """1 where an answer with one block was sampled and is trained as it should be."""
    episode, asked = _played(*ANSWERED)
    begin = "<user>3+4?<assistant>"
    joined = "<Path>a</Path><Path>bc</Path></Parallel>\n<Summary>"
    return float(
        asked == [begin, *[f"{begin}2+2.<Parallel><Path>"] * 2, f"{begin}2+2.<Parallel>{joined}"]
        and _sequences(episode)
        == [
            f"{begin}[2+2.<Parallel>]{joined}[so.</Summary>\n7]",
            f"{begin}2+2.<Parallel><Path>[a</Path>]",
            f"{begin}2+2.<Parallel><Path>[bc</Path>]",
        ]
        and episode.correct
    )


def _rewards(step: int, **settings: Any) -> list[float]:
    """At a step: of a right answer with a block, a right and a wrong one without, a wrong one with a block."""
    reward = built(RECIPE, "reward", settings)
    if step:
        reward.observe([], [], ExampleContext(step=step - 1))
    made = [(1.0, 1), (1.0, 0), (0.0, 0), (0.0, 1)]
    return [reward(replace(example_episode(r), notes={"blocks": b}))["reward"] for r, b in made]


RECIPE: Recipe = Recipe(
    name="parallel_r1",
    base=GRPO,
    paper=Paper("Parallel-R1: Towards Parallel Thinking via Reinforcement Learning", "2509.07980", 2025),
    published_lr=1e-6,
    idea="Where it pays to look at a problem in several ways, the policy forks: paths are written side by side, none of them sees another, and a "
    "summary joins them. Whether to fork is learnt by reward. In a fifth of the steps right answers that forked earn more, so that forking does not die out.",
    equation="r = +1 right, -1 wrong; in 2 of every 10 steps right with a block +1.2;  A and L as GRPO, clip 1 - 0.2 to 1 + 0.28, over the answer "
    "and its paths",
    departures=(
        "paths are sampled apart and each is trained as a sequence of its own behind what it was sampled behind, so ratios are exact; the "
        "paper's 'seen' variant trains one sequence in which later paths see earlier ones, its 'unseen' one masks them with shared positions",
        "the tags are asked for in words below the question (rollout.parallel_request), where the paper's cold start on prompted traces of easy "
        "problems makes the policy write them unasked: `rft` with this rollout, then this, as stages of one file",
        "GUESS: alternating rewards from the first step on; the paper's best run is 200 such steps and then accuracy alone",
        "after the fourth block an answer goes on without forking",
    ),
    stages={
        "rollout": stage(forking),
        "reward": stage(Alternating),
        "objective": stage(clipped, clip_high=0.28),
    },
    needs=("text",),
    claim="With the alternating reward many more answers fork than with accuracy alone, at a similar accuracy.",
    manipulation=(Manipulated("a tenth of the answers fork", r"reward\.parallel", 0.1),),
    examples=(
        ByHand("one block: who saw what, and what is trained", _forked, 1),
        ByHand(
            "no forks allowed: the tag is text",
            lambda: _played("<Parallel>7", most_blocks=0)[0].notes["forks"],
            0,
        ),
        ByHand(
            "blocks: a whole one; one path; no summary; two summaries; none",
            lambda: [
                blocks("x<Parallel><Path>a</Path> <Path>b</Path></Parallel>\n<Summary>c</Summary>y"),
                blocks("<Parallel><Path>a</Path></Parallel><Summary>c</Summary>"),
                blocks("<Parallel><Path>a</Path><Path>b</Path></Parallel>c"),
                blocks(
                    "<Parallel><Path>a</Path><Path>b</Path></Parallel><Summary>c</Summary><Summary>d</Summary>"
                ),
                blocks("x"),
            ],
            [1, 0, 0, 0, 0],
        ),
        ByHand("the first eight of ten steps", lambda: [*_rewards(0), *_rewards(7)], [1, 1, -1, -1] * 2),
        ByHand(
            "the ninth and tenth, and the eleventh",
            lambda: [*_rewards(8), *_rewards(10)],
            [1.2, 1, -1, -1, 1, 1, -1, -1],
        ),
        OffPolicy(
            "the clip reaches to 1.28",
            ratio=(1.25, 1.5, 0.5),
            advantage=(1.0, 1.0, -1.0),
            lengths=(1, 1, 1),
            loss=(-1.25 - 1.28 + 0.8) / 3,
            gradient=(-1.25 / 3, 0, 0),
        ),
        Reduction(
            "nothing forks, wrong is 0, the usual clip: GRPO",
            "grpo",
            {"rollout.parallel_request": "", "reward.wrong_reward": 0.0, "objective.clip_high": 0.2},
        ),
    ),
)
