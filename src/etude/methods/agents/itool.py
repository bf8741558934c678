"""iTool: calls are searched fragment by fragment, and the better of two fragments is preferred, on the tasks that surprise the model most.

After a warm-up that imitates, each update takes the tasks whose solution is most surprising to the policy, grows a tree of fragments of
replies (Monte-Carlo tree search, with the solution in view of the one who judges), and prefers at every node the best way to go on to the worst. So
a wrong value of one parameter is told apart from a right one, and not whole replies. Boosting Tool Use of Large Language Models via
Iterative Reinforced Fine-Tuning, arXiv 2501.09766; released code: `mcts/mcts_vllm.py`, `scripts/cal_ppl.py`.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

import numpy as np

from etude import seeds
from etude.channels import writes
from etude.credit.imitate import IMITATION, imitate, tagged
from etude.curriculum.surprising import MostSurprising
from etude.fixtures.given import GivenContext, GivenModel, Letters, given_stage
from etude.fixtures.inference import collected, example_question
from etude.methods.imitation.sft import RECIPE as SFT
from etude.methods.preference.dpo import PREFERRED
from etude.methods.preference.simpo import mean_likelihood
from etude.objective.imitation import imitation
from etude.objective.preference import PAIR
from etude.objective.terms import Objective, objective
from etude.recipe import ByHand, OffPolicy, Paper, Recipe, Reduction
from etude.reward.attempts import verdict_if_any
from etude.rollout.attempts import reworded
from etude.rollout.conversation import Conversation
from etude.rollout.demonstrate import DEMONSTRATED
from etude.rollout.demonstrations import WarmupShare
from etude.rollout.group_rollout import DEMONSTRATION, GroupRollout
from etude.rollout.writers import Address, Longest, WhoWrites, Writer
from etude.search.fragments import Node, best_child, everything, fragments, guess
from etude.settings import Setting, stage
from etude.stages import Context, Credit
from etude.text.overlap import overlap
from etude.types import Episode, Group, Request, Signal, Task

FRAGMENT, PREFIX = "fragment", "prefix"
"""Tags: the fragment that is compared, and what stands before it in the reply."""
SIDE = "side"
"""Note: +1 of the better fragment, -1 of the worse, and the number of their pair."""
STEPS = 2  # of a look ahead
WORTH = {"A": 0.25, "B": 0.025, "C": -0.25, "D": -0.5}
"""What a judgement is worth: a quarter of 1, 0.1, -1 and -2, as in the release."""

# ---- group rollout ------------------------------------------------------------------------------------------------------


class Searched:
    """The demonstration during the warm-up; then pairs of fragments from a search."""

    def __init__(
        self,
        warmup_share: WarmupShare = 0.25,
        simulations: Annotated[int, Setting("rounds of the search", low=1)] = 5,
        width: Annotated[int, Setting("replies that a node is gone on with at a time", low=1)] = 3,
        depth: Annotated[int, Setting("fragments of a reply at most; the last one is its rest", low=1)] = 3,
        exploration: Annotated[float, Setting("c, how much what was tried less counts", low=0)] = 1.0,
        search_temperature: Annotated[float, Setting("at which replies are drawn", low=0.01, high=10)] = 1.5,
        apart: Annotated[float, Setting("least difference in value of a pair", low=0)] = 0.1,
        least_value: Annotated[float, Setting("least value of the better fragment")] = -0.3,
        most_overlap: Annotated[float, Setting("most overlap in words of a pair", low=0, high=1)] = 0.95,
        judge: WhoWrites = "policy",
        address: Address = "",
        longest: Longest = None,
    ) -> None:
        self.warmup_share, self.simulations, self.width, self.depth = warmup_share, simulations, width, depth
        self.exploration, self.temperature = exploration, search_temperature
        self.apart, self.least_value, self.most_overlap = apart, least_value, most_overlap
        self.writer = Writer(judge, address, longest)
        self.reads = self.writer.reads

    async def __call__(self, rollouts: GroupRollout) -> list[Episode]:
        if rollouts.progress < self.warmup_share:
            return [rollouts.demonstrate()]
        return await rollouts.play(DEMONSTRATION + 1, self.search)

    async def search(self, task: Task, conversation: Conversation) -> list[Episode]:
        """The pairs of one task, best and worst child of each node that has two."""
        gold, root = task.reference or task.answer or "", Node()
        for number in range(self.simulations):
            node, deep = root, 0
            while len(node.children) > self.width and deep < self.depth:
                node, deep = best_child(node, self.exploration), deep + 1
            if len(node.children) > self.width or node.ended or len(node.path) >= self.depth:
                continue
            await self._expand(conversation, node, gold, number)
            text, end = await self._ahead(conversation, node, number)
            end.back_up(await self._judged(conversation, gold, text, number))
        pairs = [pair for node in everything(root) if (pair := self._pair(node))]
        return [
            laid_out(conversation, node, side, number)
            for number, pair in enumerate(pairs, 1)
            for node, side in zip(pair, (1, -1), strict=True)
        ]

    async def _replies(
        self, conversation: Conversation, node: Node, n: int, *name: object
    ) -> list[Conversation]:
        """`n` ways to go on to the end of a reply."""

        async def one(i: int) -> Conversation:
            line = replace(conversation.fork(i), key=seeds.key(conversation.key, *name, i))
            line.user(line.task.prompt)
            if node.path:
                line.force_prefix(np.concatenate([n.tokens for n in node.path]), PREFIX)
            await line.sample(FRAGMENT, None, (), {"temperature": self.temperature})
            return line

        lines = await asyncio.gather(*(one(i) for i in range(n)))
        return [line for line in lines if not line.full]

    async def _expand(self, conversation: Conversation, node: Node, gold: str, number: int) -> None:
        decode = conversation.generator.renderer.decode
        for line in await self._replies(conversation, node, self.width, "expand", number):
            sample, here, begin = line.samples[-1], node, 0
            cut = fragments(sample.tokens, decode)
            room = self.depth - len(node.path)
            if len(cut) > room:
                cut = [*cut[: room - 1], np.concatenate(cut[room - 1 :])]
            for i, tokens in enumerate(cut):
                logp, begin = sample.logp[begin : begin + len(tokens)], begin + len(tokens)
                text = decode(tokens)
                child = Node(tokens, text, here, float(np.exp(logp.mean())), value=guess(gold, text))
                child.ended = i + 1 == len(cut) and line.stop == "end"
                here.children.append(child)
                here = child

    async def _ahead(self, conversation: Conversation, node: Node, number: int) -> tuple[str, Node]:
        """What the next fragments say, those of the largest values, and the node that they lead to. What is sampled to go on from a
        node without children is read and not kept."""
        said: list[str] = []
        for step in range(STEPS):
            if node.children:
                node = max(node.children, key=lambda c: c.value)
                said.append(node.text)
            elif not node.ended:
                lines = await self._replies(conversation, node, 1, "ahead", number, step)
                decode = conversation.generator.renderer.decode
                said += [decode(line.samples[-1].tokens) for line in lines]
        return " ".join(said), node

    async def _judged(self, conversation: Conversation, gold: str, text: str, number: int) -> float:
        """What a judge who sees the solution thinks of the text."""
        about = replace(conversation, key=seeds.key(conversation.key, "judge", number))
        asked = reworded(conversation.task.prompt, question(gold, text))
        found = re.findall(r"(?<!\w)[ABCD](?![a-z])", await self.writer.draft(about, asked))
        return WORTH[found[0]] if found else 0.0

    def _pair(self, node: Node) -> tuple[Node, Node] | None:
        if len(node.children) < 2:
            return None
        best = max(node.children, key=lambda c: c.value)
        worst = min(node.children, key=lambda c: c.value)
        far = best.value - worst.value >= self.apart and overlap(best.text, worst.text) <= self.most_overlap
        return (best, worst) if far and best.value >= self.least_value else None


def question(gold: str, text: str) -> str:
    """What the judge is asked."""
    return (
        f"The right response:\n{gold}\n\nA part of another response:\n{text}\n\nHow well does the part agree with the right response? "
        "Answer with one letter: (A) excellent, (B) acceptable, (C) fair, (D) poor."
    )


def laid_out(conversation: Conversation, node: Node, side: int, number: int) -> Episode:
    """A fragment behind the question and what of the reply comes before it, as nobody sampled it."""
    line = conversation.fork(number)
    line.user(line.task.prompt)
    *before, last = node.path
    if before:
        line.force_prefix(np.concatenate([n.tokens for n in before]), PREFIX)
    line.force_prefix(last.tokens, FRAGMENT)
    line.stop = "end"
    return replace(line.done(**{SIDE: [side, number]}), player=DEMONSTRATED)


# ---- credit and objective -----------------------------------------------------------------------------------------------


@writes("policy", IMITATION, extras=(PAIR,))
def pairs_or_solutions() -> Credit:
    """+1 on better fragments, -1 on worse ones; imitation of demonstrations."""

    def credit(groups: Sequence[Group], context: Context) -> list[Signal]:
        signals = []
        for episode in (e for g in groups for e in g.demonstrations):
            side, number = episode.notes.get(SIDE, (0, 0))
            mark = {PAIR: np.full(len(episode.tokens), number, np.float32)}
            if side:
                on = tagged(episode, FRAGMENT).astype(np.float32)
                signals.append(Signal(episode, np.float32(side) * on, {"policy": on}, mark))
            else:
                shown = imitate(episode, tagged(episode, DEMONSTRATED))
                signals.append(replace(shown, extras=mark))
        return signals

    return credit


def preference_and_imitation(
    simpo_beta: Annotated[float, Setting("beta: scale of the mean log-probabilities", low=0)] = 2.5,
    target_margin: Annotated[float, Setting("gamma: by how much the better answer shall lead", low=0)] = 0.5,
) -> Objective:
    """SimPO on pairs of fragments, and cross-entropy on demonstrations; a step has one of the two."""
    return mean_likelihood(simpo_beta, target_margin) + objective(imitation())


# ---- the recipe ---------------------------------------------------------------------------------------------------------

GOLD, RIGHT_SO_FAR, OTHER = "add, 7, 8", "add, 7, ", "add, 9, "
"""A solution, the first fragments of it and of a reply that takes 9 for 7; the second ones are "8"."""


def paired(*said: str, **settings: Any) -> list[list[float]]:
    """[side, tokens before, tokens compared] of each fragment, after one round of two replies and a judgement."""
    changed = {"warmup_share": 0.0, "simulations": 1, "width": 2, **settings}
    given = {f"group_rollout.{name}": value for name, value in changed.items()}
    task = replace(example_question(), reference=GOLD)
    made = collected(RECIPE, said, settings=given, task=task)
    group = Group(task, (), demonstrations=tuple(made))
    found = []
    for signal in given_stage(RECIPE, "credit")([group], GivenContext()):
        compared, before = signal.weights["policy"].sum(), tagged(signal.episode, PREFIX).sum()
        found.append([float(signal.advantage.sum() / compared), float(before), float(compared)])
    return found


def visited() -> Node:
    """A node that was visited three times; its children: values 2 and 1 after two visits and none, priors 1/2 and 1/4."""
    node = Node(visits=3)
    node.children = [
        Node(text="a", parent=node, prior=0.5, value=2.0, visits=2),
        Node(text="b", parent=node, prior=0.25, value=1.0),
    ]
    return node


class Drawn:
    """Tasks whose solution is one letter."""

    def draw(self, request: Request, index: int, seed: int) -> Task:
        return replace(example_question(str(index)), answer="a")


def chosen(**settings: Any) -> list[str]:
    """Which of tasks 0, 1 and 2 is asked for; their solutions, of two tokens with the end, have -1, -3 and -2 a token."""
    model = GivenModel(logp=(-1.0, -1.0, -3.0, -3.0, -2.0, -2.0))
    curriculum = given_stage(RECIPE, "curriculum", hardest_share=1 / 3, **settings)
    asked = curriculum.next(1, GivenContext(model, progress=0.5, tasks=Drawn()))
    return [float(r.task.prompt[-1].content) if r.task else -1.0 for r in asked] + list(
        curriculum.report().values()
    )


LEAD = 1.5 * math.log(2)  # of SimPO's row
W = 1 / (1 + math.exp(2.5 * LEAD - 0.5))

RECIPE: Recipe = Recipe(
    name="itool",
    base=SFT,
    paper=Paper(
        "Boosting Tool Use of Large Language Models via Iterative Reinforced Fine-Tuning", "2501.09766", 2025
    ),
    published_lr=1e-6,
    idea="Calls mostly fail by a part: a wrong value, a missing parameter. So replies are searched part by part, a judge who knows the right "
    "call rates what comes of each part, and the best way to go on is preferred to the worst. Only the tasks whose right call "
    "surprises the model most are searched.",
    equation="L = - mean log sigmoid(beta log pi(f+|x,h)/|f+| - beta log pi(f-|x,h)/|f-| - gamma);  tasks: the largest exp(- mean log pi(y* | x))",
    departures=(
        "the judge's letter is sampled, where the release sums the probabilities of all four over seven tokens; A counts 1/4, B 1/40, C -1/4, "
        "D -1/2, as there",
        "fragments are cut between tokens, so that what was sampled stays as it was; the release joins pieces with blanks",
        "no repetition penalty; SimPO as in the paper, where the released training script has DPO as its default",
        "the first quarter of the run imitates (the warm-up), in the tasks' own order: the paper goes from easy to hard, which "
        "`etude pipeline` with sft+easy_to_hard does before this",
        "the search is made anew at every update, for the tasks of that update; perplexity is ranked among as many tasks as are drawn for it",
    ),
    stages={
        "curriculum": stage(MostSurprising),
        "group_rollout": stage(Searched),
        "reward": stage(verdict_if_any),
        "credit": stage(pairs_or_solutions),
        "objective": stage(preference_and_imitation),
    },
    needs=("text", "answer"),
    claim="On calls with several parameters it ends above further imitation of the right calls.",
    manipulation=(PREFERRED,),
    examples=(
        ByHand(
            "a reply is cut after every second separator",
            lambda: [len(f) for f in fragments(Letters().encode("[f(a=1, b=2)]"), Letters().decode)],
            [5, 5, 3],
        ),
        ByHand(
            "words: 2 of 2, 1 of 2; and with 0.1 for no end of a list where there is none",
            lambda: [guess(GOLD, RIGHT_SO_FAR), guess(GOLD, OTHER), guess(GOLD, "add, 7, 8)]")],
            [0.1 + 1 - 0.5, 0.1 + 0.5 - 0.5, -0.1 + 2 / 3 - 0.5],
        ),
        ByHand(
            "2/3 + c/2 sqrt(log 3 / 3) against 1 + c/4 sqrt(log 3): b for c = 0, 1 and 5 (2.18 against 2.31), a for c = 9",
            lambda: [best_child(visited(), c).text == "a" for c in (0.0, 1.0, 5.0, 9.0)],
            [0, 0, 0, 1],
        ),
        ByHand(
            "A: 0.6 + 1/4 for 'add, 7, ' over 0.1 for 'add, 9, ', eight tokens each, nothing before them",
            lambda: paired(GOLD, "add, 9, 8", "A"),
            [[1, 0, 8], [-1, 0, 8]],
        ),
        ByHand("D: 0.6 - 1/2 and 0.1 are too close", lambda: paired(GOLD, "add, 9, 8", "D"), []),
        ByHand(
            "in one fragment: whole replies, ten tokens with their end",
            lambda: paired(GOLD, "add, 9, 8", "(A)", depth=1),
            [[1, 0, 10], [-1, 0, 10]],
        ),
        ByHand(
            "half of the words are the same, which is too much; or too bad, the better one",
            lambda: [
                *paired(GOLD, "add, 9, 8", "A", most_overlap=0.4),
                *paired(GOLD, "add, 9, 8", "A", least_value=0.9),
            ],
            [],
        ),
        ByHand(
            "of three tasks the one of perplexity e^3, of e, e^3 and e^2",
            chosen,
            [1.0, math.e**3, (math.e + math.e**3 + math.e**2) / 3],
        ),
        ByHand("before it begins: whatever comes", lambda: chosen(hardest_from=0.6), [-1.0]),
        OffPolicy(
            "f+ of two tokens, log pi = -2 + log 2; f- of one, -1 - log 2; beta 2.5, gamma 1/2",
            ratio=(2.0, 1.0, 0.5),
            advantage=(1.0, 1.0, -1.0),
            lengths=(2, 1),
            extras={PAIR: (1, 1, 1)},
            loss=math.log1p(math.exp(-(2.5 * LEAD - 0.5))),
            gradient=(-1.25 * W, -1.25 * W, 2.5 * W),
        ),
        Reduction(
            "a warm-up for all of the run: supervised fine-tuning", "sft", {"group_rollout.warmup_share": 1.0}
        ),
    ),
)
