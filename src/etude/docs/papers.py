"""docs/papers.md: the papers behind the recipes, each with the recipes that implement it."""

from __future__ import annotations

from collections.abc import Iterable

from etude.methods import catalogue
from etude.recipe import Paper, Recipe

HEADER = ("paper", "arXiv", "year", "topic", "learning rate", "recipes")


def papers_page(recipes: Iterable[Recipe] | None = None) -> str:
    """The list as Markdown, newest first, one line per paper, from `recipes` (default: the whole catalogue). A paper
    is told apart by its title; recipes without one stand below."""
    known = list(catalogue().values()) if recipes is None else list(recipes)
    by_paper: dict[Paper, list[Recipe]] = {}
    for recipe in known:
        if recipe.paper:
            by_paper.setdefault(recipe.paper, []).append(recipe)
    order = sorted(by_paper, key=lambda paper: (-paper.year, paper.title))
    others = sorted(recipe.name for recipe in known if not recipe.paper)
    lines = [
        "# Papers",
        "",
        "Made by `python -m etude.docs.method_docs` from the recipes themselves: one line per paper, newest first, with the",
        "recipes that implement it. `etude recipes NAME` says where a recipe departs from its paper. The learning rate is that",
        "of the paper's own settings, where known, for models of billions of weights. Every recipe begins with `update.lr=1e-5`;",
        "`etude compare --tune` finds one for a model.",
        "",
        table_row(HEADER),
        table_row(["---"] * len(HEADER)),
        *(_line(paper, by_paper[paper]) for paper in order),
        "",
    ]
    if others:
        lines += [f"Without a paper of their own: {', '.join(f'`{name}`' for name in others)}.", ""]
    return "\n".join(lines)


def _line(paper: Paper, recipes: list[Recipe]) -> str:
    link = f"[{paper.arxiv}]({paper.url})" if paper.arxiv else "-"
    topics = sorted({recipe.topic for recipe in recipes})
    names = [f"`{name}`" for name in sorted(recipe.name for recipe in recipes)]
    rates = sorted({f"{recipe.published_lr:g}" for recipe in recipes if recipe.published_lr}, key=float)
    found = (paper.title, link, str(paper.year), ", ".join(topics), ", ".join(rates) or "-", ", ".join(names))
    return table_row(found)


def table_row(cells: Iterable[str]) -> str:
    """One row of a Markdown table."""
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
