"""CLIMB: texts from easy to hard, and a vocabulary that grows, for small models that learn from little text.

Three curricula for pre-training on as much text as a child hears, of which two are here. Texts: at first only the easiest tenth of them,
later all; what is easy, the model's own perplexity says, or the frequency of words, or the source's level. Words: at first only the
commonest tenth of the vocabulary is read, rarer tokens appear as unknown. The paper's finding is a null result: none of them beats plain
shuffling consistently. CLIMB: Curriculum Learning for Infant-inspired Model Building, arXiv 2311.08886; paces and numbers after the
released code (codebyzeb/CLIMB, `src/data_curriculum`, `src/vocabulary_curriculum`, `conf`)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Annotated, Any

import numpy as np

from etude.channels import writes
from etude.credit.imitate import IMITATION, imitate, shown, tagged
from etude.errors import UserError
from etude.fixtures.curricula import ExampleContext, example_task
from etude.fixtures.given import GivenContext, GivenModel, beyond_prompt, example_demonstration, given_stage
from etude.methods.imitation.masked_thought import READ, cross_entropy_with_holes
from etude.methods.imitation.sft import RECIPE as SFT
from etude.recipe import ByHand, Manipulated, Paper, Recipe, Reduction
from etude.rollout.demonstrate import DEMONSTRATED, solution
from etude.settings import Setting, stage
from etude.stages import Context, Credit
from etude.types import Array, Group, Message, Request, Signal, Task

STEEP = 10.0  # c of the logarithmic pace

BeginAt = Annotated[float, Setting("s: share of the run at which the share begins to grow", low=0, high=1)]
EndAt = Annotated[float, Setting("e: share of the run at which it is largest", low=0, high=1)]
Pace = Annotated[str, Setting("how it grows between", choices=("linear", "log"))]


def paced(progress: float, first: float, begin: float, end: float, pace: str) -> float:
    """d(t), with x = (t - s) / (e - s): d0 before s; d0 + (1 - d0) x, or d0 + (1 - d0) (1 + log(x + exp(-c)) / c), c = 10; at
    most 1."""
    if progress < begin:
        return first
    x = min(1.0, (progress - begin) / (end - begin))
    grown = x if pace == "linear" else 1 + math.log(x + math.exp(-STEEP)) / STEEP
    return min(1.0, first + (1 - first) * grown)


def _ordered(begin: float, end: float, stage_name: str) -> None:
    if end <= begin:
        raise UserError(
            f"{stage_name}.end_at is {end:g}; it must be larger than {stage_name}.begin_at, {begin:g}"
        )


# ---- curriculum: which texts ---------------------------------------------------------------------------------------


class EasiestFirst:
    """Of ceil(n / d(t)) texts that are drawn, the n easiest: each is as likely as any other text whose difficulty lies in the lowest
    share d(t). Difficulty in nats a token: -log p under the policy as it is now (`own`), -log of a token's share of all tokens that
    were drawn so far, one added to each count (`unigram`), or the task's own level (`level`)."""

    def __init__(
        self,
        difficulty: Annotated[
            str, Setting("what makes a text hard", choices=("own", "unigram", "level"))
        ] = "own",
        first_texts: Annotated[
            float,
            Setting("d0: share of the texts, the easiest, that are drawn from at first", low=0.01, high=1),
        ] = 0.1,
        begin_at: BeginAt = 0.0625,
        end_at: EndAt = 0.875,
        pace: Pace = "linear",
    ) -> None:
        _ordered(begin_at, end_at, "curriculum")
        self.difficulty, self.pacing = difficulty, (first_texts, begin_at, end_at, pace)
        self.drawn = 0  # texts drawn so far, those that were passed over included
        self.counts: Counter[int] = Counter()
        self.last: dict[str, float] = {}

    def next(self, n: int, context: Context) -> list[Request]:
        share = paced(context.progress, *self.pacing)
        pool = math.ceil(n / share - 1e-9)
        tasks = [context.tasks.draw(Request(), self.drawn + i, context.seed) for i in range(pool)]
        self.drawn += pool
        hard = self._difficulties(tasks, context)
        easiest = sorted(np.argsort(hard, kind="stable")[:n].tolist())
        self.last = {"share": share, "chosen": float(hard[easiest].mean()), "drawn": float(hard.mean())}
        return [Request(task=tasks[i], why=f"difficulty {hard[i]:.3g}") for i in easiest]

    def _difficulties(self, tasks: Sequence[Task], context: Context) -> Array:
        """f64[pool]."""
        if self.difficulty == "level":
            return np.array([t.difficulty for t in tasks])
        texts = [solution(t, context.policy.renderer) for t in tasks]
        signals = [imitate(e, tagged(e, DEMONSTRATED)) for e in texts]
        words = [s.episode.tokens[s.weights[IMITATION] > 0] for s in signals]
        if self.difficulty == "own":
            rows = context.rows(signals, lambda out: out.logp)
            return np.array([-r[s.weights[IMITATION] > 0].mean() for r, s in zip(rows, signals, strict=True)])
        for row in words:
            self.counts.update(row.tolist())
        total = self.counts.total() + len(self.counts)
        return np.array(
            [np.mean([math.log(total / (self.counts[t] + 1)) for t in row.tolist()]) for row in words]
        )

    def observe(self, groups: Sequence[Group], signals: Sequence[Signal], context: Context) -> None: ...

    def report(self) -> Mapping[str, float]:
        """The share of the texts that is drawn from; mean difficulty of those that were chosen and of all that were drawn."""
        return dict(self.last)

    def state_dict(self) -> dict[str, Any]:
        return {"drawn": self.drawn, "counts": dict(self.counts), "last": dict(self.last)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.drawn, self.counts, self.last = state["drawn"], Counter(state["counts"]), dict(state["last"])


# ---- credit: which words are read -----------------------------------------------------------------------------------


@writes(IMITATION, extras=(READ,))
def growing_vocabulary(
    first_words: Annotated[
        float,
        Setting(
            "d0: share of the vocabulary, by token id, that is read at first; 1: all of it", low=0.001, high=1
        ),
    ] = 0.1,
    begin_at: BeginAt = 0.0625,
    end_at: EndAt = 0.875,
    pace: Pace = "linear",
) -> Credit:
    """Imitation of the demonstrations. In the text, tokens whose id lies above d(t) |V| are read as the token that ends a reply; what
    is to be said stays as it is. Ids stand for frequency: a tokenizer's earliest merges have the lowest."""
    _ordered(begin_at, end_at, "credit")

    def credit(groups: Sequence[Group], context: Context) -> list[Signal]:
        tokenizer = context.policy.tokenizer
        most = paced(context.progress, first_words, begin_at, end_at, pace)
        most *= tokenizer.backend.get_vocab_size()
        signals = []
        for signal in shown(groups):
            tokens = signal.episode.tokens
            rare = (tokens > most) & (signal.weights[IMITATION] > 0)
            read = np.where(rare, tokenizer.stops[0], tokens).astype(np.float32)
            signals.append(replace(signal, extras={READ: read}))
        return signals

    return credit


# ---- numbers --------------------------------------------------------------------------------------------------------


def _chosen(progress: float, **settings: Any) -> list[float]:
    """Levels of the two texts that are taken of those with levels 9, 8, ..., 0, and how many were drawn."""
    curriculum = given_stage(RECIPE, "curriculum", difficulty="level", first_texts=0.2, **settings)
    tasks = SimpleNamespace(draw=lambda request, index, seed: example_task(("a", 9.0 - index % 10)))
    found = curriculum.next(2, ExampleContext(progress=progress, tasks=tasks))
    return [*(r.task.difficulty for r in found), curriculum.drawn]


def _hard(difficulty: str) -> list[float]:
    """Of texts "aab" and "bc", with the token that ends them."""
    texts = [
        replace(example_task(("a", 0.0)), prompt=(Message("user", "q"),), reference=t) for t in ("aab", "bc")
    ]
    model = GivenModel(logp=[-1.0, -1.0, -1.0, -5.0, -3.0, -1.0, -5.0])
    curriculum = given_stage(RECIPE, "curriculum", difficulty=difficulty)
    found: Array = curriculum._difficulties(texts, GivenContext(model))
    return found.tolist()


def _read(progress: float, **settings: Any) -> list[float]:
    """What is read of a solution with the tokens 5, 60, 120; the vocabulary has 128."""
    group = Group(TEXT.task, (), demonstrations=(TEXT,))
    credit = given_stage(RECIPE, "credit", **settings)
    return beyond_prompt(credit([group], GivenContext(progress=progress)), READ)


TEXT = example_demonstration((5, 60, 120))

RECIPE: Recipe = Recipe(
    name="climb",
    base=SFT,
    paper=Paper("CLIMB: Curriculum Learning for Infant-inspired Model Building", "2311.08886", 2023),
    published_lr=1e-3,
    idea="A small model that has little text to learn from is shown the easiest texts first, and of each only the commonest words. "
    "Both shares grow with the run until it reads everything. "
    "In the paper no such order beats plain shuffling consistently.",
    equation="d(t) = d0 + (1 - d0) x, or d0 + (1 - d0) (1 + log(x + e^-c) / c),  x = (t - s) / (e - s);  texts: difficulty percentile <= d(t);  "
    "words: id <= d(t) |V|, else unknown",
    departures=(
        "a causal model predicts the next token; the paper has masked ones (RoBERTa)",
        "the curriculum of objectives is not here: it predicts parts of speech, for which no tagger is at hand; vocabularies by parts of "
        "speech are not, for the same reason",
        "a percentile is one among the texts drawn at a step, which are more by 1 / d(t); own perplexity is that of now, where the paper "
        "recomputes it for all texts every 25,000 steps; the first ranking is the starting model's and no unigram's",
        "both curricula are on; the paper examines one at a time (curriculum.first_texts=1 or credit.first_words=1)",
        "the token that ends a reply stands for unknown words; the prompt is read as it is",
        "texts are the tasks' worked solutions, behind their prompts",
    ),
    stages={
        "curriculum": stage(EasiestFirst),
        "credit": stage(growing_vocabulary),
        "objective": stage(cross_entropy_with_holes),
    },
    needs=("answer", "text"),
    claim="No variant beats plain shuffling consistently.",
    manipulation=(Manipulated("the share of texts grows by half", r"curriculum\.share", 0.5, read="range"),),
    examples=(
        ByHand(
            "linear: before, at the begin, halfway, at the end, after",
            lambda: [paced(p, 0.1, 0.2, 0.6, "linear") for p in (0.0, 0.2, 0.4, 0.6, 1.0)],
            [0.1, 0.1, 0.55, 1, 1],
        ),
        ByHand(
            "logarithmic: at the begin, halfway, at the end",
            lambda: [paced(p, 0.1, 0.2, 0.6, "log") for p in (0.2, 0.4, 0.6)],
            [0.1, 0.1 + 0.9 * (1 + math.log(0.5 + math.exp(-10)) / 10), 1],
        ),
        ByHand("a fifth at first: the two easiest of ten", lambda: _chosen(0.0), [1, 0, 10]),
        ByHand(
            "the share is 0.6 halfway: the two easiest of four; all at the end: two",
            lambda: [*_chosen(0.5, begin_at=0.0, end_at=1.0), *_chosen(1.0)],
            [7, 6, 4, 9, 8, 2],
        ),
        ByHand("means of the policy's own log-probabilities", lambda: _hard("own"), [2, 3]),
        ByHand(
            "counts 2 2 1 2 of a, b, c and the end, with one added 3 3 2 3 of 11",
            lambda: _hard("unigram"),
            [math.log(11 / 3), (2 * math.log(11 / 3) + math.log(11 / 2)) / 3],
        ),
        ByHand(
            "a tenth of 128 is read at first, half of it halfway, all at last",
            lambda: [*_read(0.0), *_read(0.4, begin_at=0.0, end_at=0.9), *_read(0.9)],
            [5, 0, 0, 5, 60, 0, 5, 60, 120],
        ),
        Reduction(
            "all texts and words from the beginning: fine-tuning",
            "sft",
            {"curriculum.first_texts": 1.0, "credit.first_words": 1.0},
        ),
    ),
)
