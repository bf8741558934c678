"""MaskSearch: words are hidden in a text and must be searched for, first one, in the end four; then the real questions come.

Wu et al. (arXiv 2505.20285); which words are hidden after the released code (Alibaba-NLP/MaskSearch, RAMP/gen_qa.py). Retrieval-augmented
mask prediction (RAMP) is a task made of any text:

- Entities are named that the text does not itself reveal; those that occur twice, or with which it begins, are left out. k of them, drawn by
  their number of words (a number counts as much as the longest), stand as [mask].
- k rises from 1 to 4 over the first part of the run; whatever tools the run has may be used to find them.
- R = (1 - w) worth + w [an answer in the form asked for]. Worth: the share of masks that are right; or the recall of their words, which long
  answers can have for nothing; or that recall, less where the answer is longer than what was hidden.
- Training as DAPO.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np

from etude import seeds
from etude.curriculum.filter import VERDICT
from etude.errors import UserError
from etude.fixtures.examples import example_episode
from etude.fixtures.given import given_stage
from etude.fixtures.inference import collected, example_question
from etude.methods.policy_gradient.dapo import RECIPE as DAPO
from etude.recipe import ByHand, Manipulated, Paper, Recipe, Reduction
from etude.rollout.group_rollout import GroupRollout, verdict
from etude.rollout.writers import WRITERS, Address, Writer
from etude.settings import Setting, stage
from etude.stages import Context, Reward
from etude.tasks.check import AnswerCheck
from etude.tasks.extract import peel
from etude.tools.retrieval import CorpusFolder, corpus_of
from etude.types import Episode, Group, Message, Signal, Task

MASKS = "masks"
"""Column of a task that was made here: what is hidden, in order."""

KIND, HOLE, MOST = "ramp", "[mask]", 4
WORTHS = ("each", "recall", "short recall")
CAPITALISED, NUMBER = re.compile(r"[A-Z][\w'-]*(?: [A-Z][\w'-]*)*"), re.compile(r"\d[\d.,]*\d|\d")

FILL = (
    "{text}\n\nWhat stood in place of each [mask]? Search for what the text does not tell. Answer as \\boxed{{first; second; ...}}, one "
    "for each [mask], in their order."
)
NAME = (
    "{text}\n\nName people, places, organisations, terms and numbers of this text that cannot be worked out from the rest of it, each word for "
    "word and no longer than needed, one a line, nothing else."
)


# ---- the task --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Filled(AnswerCheck):
    """The hidden words in order, with ";" between them. `worth`: one of `WORTHS`."""

    worth: str = "each"

    def score(self, found: str) -> float:
        gold, said = (_words(text) for text in (self.gold, found))
        if self.worth == "each":
            mine = [_words(part) for part in peel(found).split(";")]
            wanted = [_words(part) for part in self.gold.split(";")]
            return sum(a == b for a, b in zip(mine, wanted, strict=False)) / len(wanted)
        recall = sum((Counter(gold) & Counter(said)).values()) / max(1, len(gold))
        return recall if self.worth == "recall" else recall * min(1.0, len(gold) / max(1, len(said)))


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def by_rule(text: str) -> list[str]:
    """Runs of capitalised words that do not begin a sentence, and numbers."""
    begins = {m.end() for m in re.finditer(r"(?:\A|[.!?]\s+|\n\s*)", text)}
    named = [m for m in CAPITALISED.finditer(text) if m.start() not in begins]
    return [m[0] for m in sorted([*named, *NUMBER.finditer(text)], key=lambda m: m.start())]


def maskable(text: str, named: Sequence[str]) -> list[str]:
    """Those of the named entities that occur just once, not at the beginning, and without a sign that would part them in an answer; in the order of the
    text."""
    found = [e for e in dict.fromkeys(e.strip() for e in named) if e and ";" not in e and "}" not in e]
    once = [e for e in found if text.count(e) == 1 and not text.startswith(e)]
    apart = [e for e in once if not any(e != other and e in other for other in once)]
    return sorted(apart, key=text.index)


def weights_of(entities: Sequence[str]) -> list[float]:
    """Of each entity its number of words; of a number the largest of the others, 1 where there are none."""
    counts = [len(e.split()) for e in entities if not e.isdigit()]
    return [float(max(counts, default=1) if e.isdigit() else len(e.split())) for e in entities]


def ramp(text: str, entities: Sequence[str], k: int, rng: np.random.Generator, worth: str) -> Task | None:
    """The task of finding `k` of the entities, or as many as there are; None where there are none."""
    if not entities:
        return None
    p = np.array(weights_of(entities))
    drawn = rng.choice(len(entities), min(k, len(entities)), replace=False, p=p / p.sum())
    hidden = [entities[i] for i in sorted(drawn)]
    masked = text
    for one in hidden:
        masked = masked.replace(one, HOLE, 1)
    gold = "; ".join(hidden)
    check = Filled(gold, "boxed", worth=worth)
    asked = (Message("user", FILL.format(text=masked)),)
    return Task(asked, check, kind=KIND, difficulty=len(hidden), answer=gold, meta={MASKS: tuple(hidden)})


# ---- group rollout ---------------------------------------------------------------------------------------------------


class MaskedFirst:
    """In the first part of the run a group is attempts at a masked text in place of its task: a passage of the corpus, drawn by chance, or, without
    one, the task's worked solution. Where nothing can be hidden the task is attempted as it is."""

    def __init__(
        self,
        corpus: CorpusFolder = "",
        masked_until: Annotated[
            float, Setting("share of the run in which masked texts are the tasks", low=0, high=1)
        ] = 0.5,
        most_masks: Annotated[
            int, Setting("words hidden in the end; k rises to it evenly", low=1, high=16)
        ] = MOST,
        namer: Annotated[
            str, Setting("who names what may be hidden: a rule, or a model", choices=("rule", *WRITERS))
        ] = "rule",
        address: Address = "",
        worth: Annotated[str, Setting("what an answer is worth", choices=WORTHS)] = "each",
        text_words: Annotated[
            int, Setting("shortest paragraph; shorter ones are no text", "words", low=2)
        ] = 4,
    ) -> None:
        self.texts = corpus_of(corpus)
        self.until, self.most, self.worth = masked_until, most_masks, worth
        self.text_words = text_words
        self.writer = None if namer == "rule" else Writer(namer, address)
        self.reads = self.writer.reads if self.writer else frozenset()
        self.last: dict[str, float] = {}

    def prepare(self, tasks: Any) -> None:
        """Refuses a run in which nothing could be masked."""
        if self.until and self.texts is None and not any(t.reference for t in tasks.different(8, 0)):
            raise UserError(
                "mask_search needs texts: --set group_rollout.corpus=FOLDER of .txt files, or tasks with worked solutions"
            )

    async def __call__(self, rollouts: GroupRollout) -> list[Episode]:
        if rollouts.progress < self.until:
            made = await self.masked(rollouts)
            if made is not None and rollouts.admits(made):
                rollouts.task = made
        return await rollouts.plays(range(rollouts.samples))

    async def masked(self, rollouts: GroupRollout) -> Task | None:
        """A masked text; None where there is no text, or nothing in it to hide."""
        rng = seeds.generator(rollouts.key, KIND)
        text = rollouts.task.reference
        if self.texts is not None:
            text = self.texts.passages[int(rng.integers(len(self.texts.passages)))]
        if len((text or "").split()) < self.text_words or text is None:
            return None
        named = by_rule(text) if self.writer is None else await self._named(rollouts, text)
        k = 1 + int(rollouts.progress / self.until * self.most)
        return ramp(text, maskable(text, named), min(k, self.most), rng, self.worth)

    async def _named(self, rollouts: GroupRollout, text: str) -> list[str]:
        assert self.writer is not None
        asked = (Message("user", NAME.format(text=text)),)
        said = await self.writer.draft(rollouts.conversation(1 << 16), asked)
        return [line.strip(" -*\t") for line in said.splitlines()]

    def observe(
        self, groups: Sequence[Group], signals: Sequence[Signal], context: Context | None = None
    ) -> None:
        hidden = [len(g.task.meta.get(MASKS, ())) for g in groups]
        self.last = (
            {"masked": float(np.mean([n > 0 for n in hidden])), "k": float(np.mean(hidden))} if hidden else {}
        )

    def report(self) -> Mapping[str, float]:
        """Of the last step: the share of groups that were masked texts, and the words hidden in a group."""
        return self.last


# ---- reward ----------------------------------------------------------------------------------------------------------


def filled_in_form(
    form_weight: Annotated[
        float, Setting("weight of the form in the reward of a masked text", low=0, high=1)
    ] = 0.1,
) -> Reward:
    """Of a masked text (1 - w) worth + w [the reply ended and holds one box with as many parts as masks]; of any other task the verdict."""

    def reward(episode: Episode) -> dict[str, float]:
        worth, hidden = verdict()(episode)["reward"], episode.task.meta.get(MASKS)
        if hidden is None:
            return {"reward": worth, VERDICT: worth}
        box = re.search(r"\\boxed\{([^{}]*)\}", episode.text)
        form = episode.stop == "end" and episode.text.count("\\boxed{") == 1 and box is not None
        form = form and len(box[1].split(";")) == len(hidden)  # type: ignore[index]
        return {"reward": (1 - form_weight) * worth + form_weight * form, VERDICT: worth, "form": float(form)}

    return reward


# ---- the recipe ------------------------------------------------------------------------------------------------------

TEXT = "Born in Oslo in 1901, Ada Lund met Bo Berg. Later Bo left Oslo Fjord for Rome."


def _made(
    *said: str, progress: float = 0.0, reference: str = TEXT, others: Any = None, **settings: Any
) -> Episode:
    named = {f"group_rollout.{k}": v for k, v in settings.items()}
    task = replace(example_question(), reference=reference)
    return collected(RECIPE, said, others, named, 1, task, progress=progress)[0]


def _hidden(progress: float, **settings: Any) -> float:
    """How many words are hidden; -1 where the answer would not be theirs, or the text not the one they are missing from."""
    task = _made("no", progress=progress, **settings).task
    hidden = task.meta.get(MASKS, ())
    text = task.prompt[0].content.split("\n\n")[0]
    for one in hidden:
        text = text.replace(HOLE, one, 1)
    return (
        float(len(hidden))
        if not hidden or (text == TEXT and task.check(f"\\boxed{{{task.answer}}}").correct)
        else -1.0
    )


def _worth(said: str, worth: str) -> float:
    return Filled("Ada Lund; 1901; Rome", "boxed", worth=worth)(f"\\boxed{{{said}}}").reward


def _rewarded(text: str, reward: float, stop: str = "end", **settings: Any) -> float:
    """Of an answer to a text in which two words are hidden."""
    made = example_episode(reward, stop=stop)
    made = replace(made, task=replace(made.task, meta={MASKS: ("a", "b")}), text=text)
    found: float = given_stage(RECIPE, "reward", **settings)(made)["reward"]
    return found


RECIPE: Recipe = Recipe(
    name="mask_search",
    base=DAPO,
    paper=Paper(
        "MaskSearch: A Universal Pre-Training Framework to Enhance Agentic Search Capability",
        "2505.20285",
        2025,
    ),
    idea="To search well can be practised on any text, without a single question. Names and numbers are hidden that the rest of the text does not "
    "tell, and the policy finds them with its tools. First one word is hidden, in the end four; then the run's own questions follow.",
    equation="k = 1 + floor(4 t / T), t the progress, T the part of the run with masks;  R = (1 - w) worth + w [form];  A and L as DAPO",
    departures=(
        "entities are named by a rule (capitalised words within a sentence, and numbers), or by a model (group_rollout.namer); in the release a "
        "large model names them",
        "entities are drawn without replacement, where the release may draw one twice; a title is not put before a text, which has none here",
        "the policy answers with what was hidden, not with the whole text, so what it copied right is worth nothing",
        "GUESS: w = 0.1; GUESS: the recall is reduced by |hidden| / |answer| words where the answer is longer; the paper's best worth is a judge's, "
        "in whose place stand equal words (`each`), or a judge of yours (--reward judge)",
        "k rises evenly with progress, as the paper's curriculum does in stages; the release hides as many as there are, at most four",
        "the paper imitates searches that agents and then a tuned model made before it reinforces: `rft` with this group_rollout does the second",
        "without DAPO's punishment of long answers; the questions that follow are trained in the same run",
    ),
    confidence="source",
    stages={"group_rollout": stage(MaskedFirst), "reward": stage(filled_in_form)},
    needs=("text",),
    claim="After masked texts questions of several hops are answered better than after as long a training on the questions alone.",
    manipulation=(
        Manipulated("a quarter of the groups are masked texts", r"group_rollout\.masked", 0.25),
        Manipulated("and more is hidden later", r"group_rollout\.k", 1.0, read="max"),
    ),
    examples=(
        ByHand(
            "maskable: 1901, Ada Lund, Bo Berg, Oslo Fjord, Rome; not Oslo, which occurs twice",
            lambda: float(
                maskable(TEXT, by_rule(TEXT)) == ["1901", "Ada Lund", "Bo Berg", "Oslo Fjord", "Rome"]
            ),
            1,
        ),
        ByHand(
            "drawn by words, a number as the longest",
            lambda: weights_of(["1901", "Ada Lund", "Rome"]),
            [2, 2, 1],
        ),
        ByHand("numbers alone", lambda: weights_of(["3", "4"]), [1, 1]),
        ByHand(
            "k over the first half of the run: 1, 1, 2, 3, 4, and the question itself",
            lambda: [_hidden(p) for p in (0.0, 0.12, 0.125, 0.25, 0.49, 0.5)],
            [1, 1, 2, 3, 4, 0],
        ),
        ByHand(
            "nothing to hide: the task as it is", lambda: float(_made("7", reference="in 1999 so").correct), 1
        ),
        ByHand(
            "a model names what may be hidden",
            lambda: float(
                _made("no", namer="teacher", others={"teacher": ["- Rome\n- Paris"]}).task.answer == "Rome"
            ),
            1,
        ),
        ByHand(
            "worth: two of three in their places; all words; one word too many of four",
            lambda: [
                _worth("Ada Lund; 1900; Rome", "each"),
                _worth("Rome 1901 Lund Ada", "recall"),
                _worth("Ada Lund 1901 Rome x", "short recall"),
            ],
            [2 / 3, 1, 4 / 5],
        ),
        ByHand("recall of one word of four", lambda: [_worth("Rome", w) for w in WORTHS], [0, 0.25, 0.25]),
        ByHand(
            "form: two parts; one; cut off; no box",
            lambda: [
                _rewarded("\\boxed{a; b}", 1.0),
                _rewarded("\\boxed{a}", 0.5),
                _rewarded("\\boxed{a; b}", 1.0, "length"),
                _rewarded("a; b", 0.0),
            ],
            [1.0, 0.45, 0.9, 0.0],
        ),
        Reduction(
            "nothing masked: DAPO without its punishment of length",
            "dapo",
            {"group_rollout.masked_until": 0.0},
            {"reward.overlong_penalty": 0.0},
        ),
    ),
)
