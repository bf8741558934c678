"""An encyclopedia of invented people, firms, cities and countries: questions whose answer stands on the page that another page leads to."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from etude.tasks.kind import Kind, Made, out_of_range
from etude.tasks.source import item_seed
from etude.tasks.spec import Param
from etude.tasks.worlds.commands import forms_of
from etude.tasks.worlds.play import COMMON, Rules, World, limited, words_of

FOUND = 4  # titles that a search gives
_ONSETS, _VOWELS, _ENDS = (
    ["b", "d", "f", "g", "k", "l", "m", "n", "p", "r", "s", "t", "v", "z"],
    "aeiou",
    ("n", "r", "l", "s", ""),
)
# relation -> (whose, what it leads to, how a page says it)
RELATIONS = {
    "born": ("person", "city", "{a} was born in {b}."),
    "works": ("person", "firm", "{a} works for {b}."),
    "based": ("firm", "city", "{a} is based in {b}."),
    "founder": ("firm", "person", "{a} was founded by {b}."),
    "country": ("city", "country", "{a} is a city in {b}."),
    "mayor": ("city", "person", "The mayor of {a} is {b}."),
}
QUESTIONS: dict[int, dict[tuple[str, ...], str]] = {
    2: {
        ("born", "country"): "In which country was {a} born?",
        ("works", "based"): "In which city is the firm based that {a} works for?",
        ("based", "country"): "In which country is {a} based?",
        ("founder", "born"): "In which city was the founder of {a} born?",
        ("born", "mayor"): "Who is the mayor of the city in which {a} was born?",
    },
    3: {
        ("founder", "born", "country"): "In which country was the founder of {a} born?",
        ("works", "based", "country"): "In which country is the firm based that {a} works for?",
        (
            "works",
            "based",
            "mayor",
        ): "Who is the mayor of the city in which the firm that {a} works for is based?",
        ("works", "founder", "born"): "In which city was the founder of the firm born that {a} works for?",
    },
}


@dataclass(frozen=True)
class Encyclopedia:
    """Makes a fresh attempt. `pages`: (title, text); `chain`: the pages that lead to `answer`, the first is named in the
    `question`."""

    pages: tuple[tuple[str, str], ...]
    question: str
    chain: tuple[str, ...]
    answer: str
    rules: Rules

    def __call__(self, seed: int = 0) -> EncyclopediaWorld:
        """A new attempt; nothing in it is left to chance."""
        return EncyclopediaWorld(self)

    def search(self, words: str) -> list[str]:
        """Titles of pages that hold a word of `words`, by how many, those in the title three times; then by title."""
        asked = set(words_of(words))
        hits = {
            title: len(asked & set(words_of(text))) + 2 * len(asked & set(words_of(title)))
            for title, text in self.pages
        }
        return sorted((t for t, n in hits.items() if n), key=lambda t: (-hits[t], t))[:FOUND]


class Commands:
    """What can be done with an encyclopedia."""

    @staticmethod
    def search(words: str) -> str:
        """Titles of pages that hold these words."""
        return f"search {words}"

    @staticmethod
    def read(title: str) -> str:
        """The page of this title."""
        return f"read {title}"

    @staticmethod
    def answer(words: str) -> str:
        """Answer the question. You can answer once."""
        return f"answer {words}"


class EncyclopediaWorld(World):
    """One attempt. Commands: search WORDS, read TITLE, answer WORDS. Answering ends it."""

    failed = "That is not the right answer."
    forms = forms_of(Commands)

    def __init__(self, plan: Encyclopedia) -> None:
        super().__init__(plan)
        self._book = plan
        self._pages: Mapping[str, str] = dict(plan.pages)
        self._titles = {title.lower(): title for title in self._pages}
        self.read: list[str] = []
        self.known: list[str] = []  # titles that were seen
        self.given: str | None = None
        self._seen = ""

    def look(self) -> str:
        return self._seen

    def actions(self) -> list[str]:
        named = [t for t in self._pages if t.lower() in self._book.question.lower()]
        known = list(dict.fromkeys([*named, *self.known]))
        searches = [f"search {t}" for t in named]
        return [*searches, *(f"read {t}" for t in known), *(f"answer {t}" for t in self.known)]

    def offered(self) -> list[str]:
        return ["search WORDS", "read TITLE", "answer WORDS"]

    def do(self, command: str) -> str | None:
        verb, _, rest = command.partition(" ")
        verb, title = verb.lower(), self._titles.get(rest.strip('"').lower())
        if verb == "answer" and rest:
            self.given = rest
        elif verb == "search" and rest:
            found = self._book.search(rest)
            self._note(*found)
            self._seen = f"Found: {'; '.join(found)}." if found else "Nothing was found."
        elif verb == "read" and title is not None:
            self.read.append(title)
            text = self._pages[title]
            self._note(title, *(t for t in self._pages if t in text))
            self._seen = text
        else:
            return "There is no such page." if verb == "read" else None
        return ""

    def milestones(self) -> Sequence[tuple[str, bool]]:
        pages = [(f'the page "{title}"', title in self.read) for title in self._book.chain]
        right = self.given is not None and words_of(self.given) == words_of(self._book.answer)
        if right:
            pages = [(name, True) for name, _ in pages]  # who knows the answer need not look it up
        return [*pages, ("the right answer", right)]

    def lost(self) -> bool:
        return self.given is not None

    def expert(self) -> str:
        unread = next((t for t in self._book.chain if t not in self.read), None)
        if unread is None:
            return f"answer {self._book.answer}"
        return f"read {unread}" if unread in self.known else f"search {unread}"

    def _note(self, *titles: str) -> None:
        self.known += [t for t in titles if t not in self.known]


def _name(draw: random.Random, taken: set[str]) -> str:
    while True:
        syllables = [draw.choice(_ONSETS) + draw.choice(_VOWELS) for _ in range(2)]
        name = ("".join(syllables) + draw.choice(_ENDS)).capitalize()
        if name not in taken:
            taken.add(name)
            return name


def _world(draw: random.Random, size: int) -> dict[str, dict[str, str]]:
    """{page: {relation: page or country}} of about `size` pages."""
    taken: set[str] = set()
    people = [f"{_name(draw, taken)} {_name(draw, taken)}" for _ in range(max(2, size // 2))]
    firms = [
        f"{_name(draw, taken)} {draw.choice(('Works', 'Mills', 'Trading'))}" for _ in range(max(2, size // 4))
    ]
    cities = [_name(draw, taken) for _ in range(max(2, size - len(people) - len(firms)))]
    countries = [_name(draw, taken) + "ia" for _ in range(max(2, len(cities) // 2))]
    kinds = {"person": people, "firm": firms, "city": cities, "country": countries}
    pages: dict[str, dict[str, str]] = {}
    for relation, (whose, to, _) in RELATIONS.items():
        for page in kinds[whose]:
            pages.setdefault(page, {})[relation] = draw.choice(kinds[to])
    return pages


def _make(s: dict[str, Any], seed: int) -> Made:
    draw = random.Random(item_seed("encyclopedia", seed))
    facts = _world(draw, s["pages"])
    relations, words = draw.choice(list(QUESTIONS[s["hops"]].items()))
    while True:
        chain = [draw.choice([page for page, known in facts.items() if relations[0] in known])]
        for relation in relations:
            chain.append(facts[chain[-1]][relation])
        if len(set(chain)) == len(chain):
            break
    pages = []
    for title, known in facts.items():
        lines = [RELATIONS[r][2].format(a=title, b=b) for r, b in known.items()]
        draw.shuffle(lines)
        pages.append((title, " ".join(lines)))
    draw.shuffle(pages)
    question = words.format(a=chain[0])
    book = Encyclopedia(tuple(pages), question, tuple(chain[:-1]), chain[-1], Rules.of(s))
    book = limited(book, s)
    how = book.rules.ask("one command: search WORDS, read TITLE, answer WORDS")
    prompt = f"Answer with the help of an encyclopedia: {question} {how} You can answer once."
    return Made(prompt, book, [pages, question, book.rules.turns])


KIND = Kind(
    "An encyclopedia and a question whose answer is some pages away",
    (
        Param("pages", int, 8, "8 to 400"),
        Param("hops", int, 2, "pages that must be read, 2 or 3"),
        *COMMON,
    ),
    (
        {"pages": 8, "hops": 2, "longest": 8},
        {"pages": 40, "hops": 2, "longest": 10},
        {"pages": 120, "hops": 3, "longest": 14},
    ),
    lambda s: out_of_range(s, pages=(8, 400), hops=(2, 3), turns=(0, 1000)),
    _make,
)
