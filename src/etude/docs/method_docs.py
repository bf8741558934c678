"""Pages of the documentation that are made from the recipes and their results, and the index that `etude recipes` reads:

python -m etude.docs.method_docs [FOLDER]        writes them (default: docs; a checkout's index with them)
"""

from __future__ import annotations

import sys
from pathlib import Path

from etude.docs.claims import Results, read
from etude.docs.claims_page import claims_page, pictures
from etude.docs.method_page import HEADER, facts, rows
from etude.docs.papers import papers_page, table_row
from etude.docs.remembered import INDEX, index
from etude.docs.renamed_page import renamed_page
from etude.docs.studies import studies_page
from etude.methods import outside


def recipes_page() -> str:
    """All recipes of the package, as `etude recipes` prints them."""
    found = [f for f in facts() if f["topic"] != outside.TOPIC]
    cells = [table_row(HEADER), table_row(["---"] * len(HEADER)), *(table_row(row) for row in rows(found))]
    return "\n".join(
        [
            "# Recipes",
            "",
            "Made by `python -m etude.docs.method_docs` from the recipes themselves. `etude recipes NAME` prints one in full.",
            "`year`: of [the paper](papers.md). `confidence`: what the description was built from. `tests`: numbers worked by hand",
            "and reductions, beside the laws that run over every recipe. `claim`: on the laboratory, does it",
            "reproduce / does it pay for itself: see [claims](claims.md).",
            "",
            *cells,
            "",
        ]
    )


def pages(results: Results | None = None) -> dict[str, str]:
    """{file name: content} of all that is made."""
    results = read() if results is None else results
    made = {
        "recipes.md": recipes_page(),
        "papers.md": papers_page(),
        "renamed-settings.md": renamed_page(),
        "claims.md": claims_page(results),
        "studies.md": studies_page(),
    }
    return made | pictures(results)


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (folder / name).write_text(text, encoding="utf-8")
    INDEX.write_text(index(), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs"))
