"""A shop with a search box: find the article that is wanted among others like it, and buy it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from etude.tasks.kind import Kind, Made, out_of_range
from etude.tasks.source import item_seed
from etude.tasks.spec import Param
from etude.tasks.worlds.commands import forms_of
from etude.tasks.worlds.play import COMMON, Rules, World, limited, words_of

ARTICLES = ("shirt", "jacket", "scarf", "dress", "coat", "skirt", "sweater", "hat")
COLOURS = ("red", "blue", "green", "black", "white", "yellow", "grey")
MATERIALS = ("wool", "cotton", "linen", "silk")
SIZES = ("small", "medium", "large")
PAGE = 4  # results on one page


@dataclass(frozen=True)
class Article:
    name: str
    colour: str
    material: str
    price: int
    sizes: tuple[str, ...]

    @property
    def title(self) -> str:
        return f"{self.colour} {self.name}"


@dataclass(frozen=True)
class Wish:
    """What is wanted; "" and 0: it does not matter."""

    name: str
    colour: str
    material: str = ""
    below: int = 0
    size: str = ""

    def __str__(self) -> str:
        size = f", size {self.size}" if self.size else ""
        below = f", for less than {self.below} coins" if self.below else ""
        return f"a {' '.join(w for w in (self.colour, self.material, self.name) if w)}{size}{below}"

    def met(self, article: Article, size: str) -> list[tuple[str, bool]]:
        """Each part of the wish, and whether the article fulfils it."""
        parts = [(f"a {self.name}", article.name == self.name), (self.colour, article.colour == self.colour)]
        if self.material:
            parts.append((self.material, article.material == self.material))
        if self.below:
            parts.append((f"less than {self.below} coins", article.price < self.below))
        if self.size:
            parts.append((f"size {self.size}", size == self.size))
        return parts


@dataclass(frozen=True)
class Shop:
    """Makes a fresh attempt: buy what is wished."""

    articles: tuple[Article, ...]
    wish: Wish
    rules: Rules

    def __call__(self, seed: int = 0) -> ShopWorld:
        """A new attempt; nothing in it is left to chance."""
        return ShopWorld(self)

    def search(self, words: str) -> list[int]:
        """The articles whose title or name shares a word with `words`, by how many, then by their number."""
        asked = set(words_of(words))
        hits = {i: len(asked & set(words_of(a.title))) for i, a in enumerate(self.articles)}
        return sorted((i for i, n in hits.items() if n), key=lambda i: (-hits[i], i))


class Commands:
    """What can be done in a shop."""

    @staticmethod
    def search(words: str) -> str:
        """Search for articles."""
        return f"search {words}"

    @staticmethod
    def next() -> str:
        """The next page of results."""
        return "next"

    @staticmethod
    def open(number: int) -> str:
        """Look at an article, by its number among the results."""
        return f"open {number}"

    @staticmethod
    def choose(size: str) -> str:
        """Choose a size of the article that you look at."""
        return f"choose {size}"

    @staticmethod
    def back() -> str:
        """Back to the results."""
        return "back"

    @staticmethod
    def buy() -> str:
        """Buy the article that you look at. You can buy once."""
        return "buy"


class ShopWorld(World):
    """One attempt. Commands: search WORDS, next, open NUMBER, choose SIZE, back, buy. Buying ends it."""

    forms = forms_of(Commands)

    failed = "You did not buy what was wanted."

    def __init__(self, plan: Shop) -> None:
        super().__init__(plan)
        self._shop = plan
        self.results: list[int] = []
        self.page = 0
        self.opened: int | None = None
        self.size = ""
        self.bought: Article | None = None
        self._looked: set[int] = set()
        self._asked = ""

    def look(self) -> str:
        if self.opened is not None:
            a = self._shop.articles[self.opened]
            chosen = f" Size chosen: {self.size}." if self.size else ""
            return f"{a.title}. Material: {a.material}. Price: {a.price} coins. Sizes: {', '.join(a.sizes)}.{chosen}"
        if not self._asked:
            return "The search box is empty."
        if not self.results:
            return f'Nothing was found for "{self._asked}".'
        first = self.page * PAGE
        shown = self._shown_results()
        lines = [f"{first + i + 1}. {self._shop.articles[n].title}" for i, n in enumerate(shown)]
        return f"{len(self.results)} results.\n" + "\n".join(lines)

    def actions(self) -> list[str]:
        if self.opened is not None:
            sizes = [f"choose {s}" for s in self._shop.articles[self.opened].sizes]
            return [*sizes, "buy", "back", *self._searches()]
        first = self.page * PAGE
        opened = [f"open {first + i + 1}" for i in range(len(self._shown_results()))]
        more = ["next"] if first + PAGE < len(self.results) else []
        return [*opened, *more, *self._searches()]

    def offered(self) -> list[str]:
        return [a for a in self.actions() if not a.startswith("search ")] + ["search WORDS"]

    def do(self, command: str) -> str | None:
        verb, _, rest = command.lower().partition(" ")
        if verb == "search" and rest:
            self._asked, self.results, self.page = rest, self._shop.search(rest), 0
            self.opened, self.size = None, ""
            return ""
        if command.lower() not in self.actions():
            return None
        if verb == "open":
            self.opened, self.size = self.results[int(rest) - 1], ""
            self._looked.add(self.opened)
        elif verb == "next":
            self.page += 1
        elif verb == "choose":
            self.size = rest
        elif verb == "back":
            self.opened, self.size = None, ""
        else:
            assert self.opened is not None
            self.bought = self._shop.articles[self.opened]
        return ""

    def milestones(self) -> Sequence[tuple[str, bool]]:
        if self.bought is None:
            return [("something bought", False)]
        return self._shop.wish.met(self.bought, self.size)

    def lost(self) -> bool:
        return self.bought is not None

    def expert(self) -> str:
        wish = self._shop.wish
        words = f"{wish.colour} {wish.name}"
        if self.opened is not None:
            article = self._shop.articles[self.opened]
            if not all(done for _, done in wish.met(article, wish.size)) or (
                wish.size and wish.size not in article.sizes
            ):
                return "back"
            return f"choose {wish.size}" if wish.size != self.size and wish.size else "buy"
        if self._asked != words:
            return f"search {words}"
        for i, number in enumerate(self._shown_results()):
            article = self._shop.articles[number]
            if number not in self._looked and (article.colour, article.name) == (wish.colour, wish.name):
                return f"open {self.page * PAGE + i + 1}"
        return "next" if (self.page + 1) * PAGE < len(self.results) else f"search {words}"

    def _shown_results(self) -> list[int]:
        return self.results[self.page * PAGE : (self.page + 1) * PAGE]

    def _searches(self) -> list[str]:
        """Searches for what the wish names."""
        wish = self._shop.wish
        words = [wish.name, wish.colour, *([wish.material] if wish.material else [])]
        return [f"search {w}" for w in (*words, f"{wish.colour} {wish.name}")]


def _make(s: dict[str, Any], seed: int) -> Made:
    draw = random.Random(item_seed("shop", seed))

    def article(name: str = "", colour: str = "", material: str = "") -> Article:
        return Article(
            name or draw.choice(ARTICLES),
            colour or draw.choice(COLOURS),
            material or draw.choice(MATERIALS),
            draw.randint(10, 99),
            tuple(x for x in SIZES if draw.random() < 0.7) or (draw.choice(SIZES),),
        )

    wanted = article()
    wish = Wish(
        wanted.name,
        wanted.colour,
        wanted.material if s["wishes"] > 1 else "",
        draw.randint(wanted.price + 1, wanted.price + 10) if s["wishes"] > 2 else 0,
        draw.choice(wanted.sizes) if s["wishes"] > 3 else "",
    )
    alike = [article(wanted.name, wanted.colour) for _ in range(s["alike"])]
    shelf = [wanted, *alike]
    while len(shelf) < s["articles"]:
        other = article()
        if other.title != wanted.title:
            shelf.append(other)
    draw.shuffle(shelf)
    shop = limited(Shop(tuple(shelf), wish, Rules.of(s)), s)
    how = shop.rules.ask("one command: search WORDS, open NUMBER, next (page), choose SIZE, back, buy")
    prompt = f"You are in a web shop. Buy {wish}. {how} You can buy once."
    return Made(prompt, shop, [[repr(a) for a in shelf], str(wish), shop.rules.turns])


def _refuse(s: dict[str, Any]) -> str:
    why = out_of_range(s, articles=(1, 1000), alike=(0, 6), wishes=(1, 4), turns=(0, 1000))
    if why or s["alike"] < s["articles"]:
        return why
    return f"alike={s['alike']} is out of range; it must be less than articles={s['articles']}"


KIND = Kind(
    "A shop with a search box: find what is wanted and buy it",
    (
        Param("articles", int, 8, "in the shop, 1 to 1000"),
        Param("alike", int, 0, "further articles of the wanted name and colour, 0 to 6"),
        Param("wishes", int, 1, "1: name and colour; 2: and material; 3: and price; 4: and size"),
        *COMMON,
    ),
    (
        {"articles": 8, "alike": 0, "wishes": 1, "longest": 8},
        {"articles": 30, "alike": 2, "wishes": 2, "longest": 16},
        {"articles": 80, "alike": 4, "wishes": 4, "longest": 30},
    ),
    _refuse,
    _make,
)
