"""Texts that a method may look something up in: a folder of text files, a passage a paragraph, found by BM25 (Robertson and
Zaragoza 2009, by the library rank-bm25)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from etude.errors import UserError
from etude.settings import Setting

CorpusFolder = Annotated[
    str, Setting("a text file, or a folder of them, a passage a paragraph, to look things up in; empty: none")
]
WORD = re.compile(r"\w+")


class Corpus:
    """Passages, ranked by how well they fit a question."""

    def __init__(self, passages: Sequence[str]) -> None:
        try:
            from rank_bm25 import BM25Okapi
        except ImportError:
            raise UserError("looking things up needs rank-bm25; pip install 'etude[retrieval]'") from None
        self.passages = list(passages)
        self._index: Any = BM25Okapi([words(p) for p in passages])

    def best(self, question: str, n: int) -> list[str]:
        """The `n` passages of the highest score, of those that share a word with the question; ties by their order."""
        asked = set(words(question))
        scores = self._index.get_scores(sorted(asked))
        fits = [i for i, p in enumerate(self.passages) if asked & set(words(p))]
        return [self.passages[i] for i in sorted(fits, key=lambda i: -scores[i])[:n]]


def words(text: str) -> list[str]:
    return WORD.findall(text.casefold())


@cache
def corpus_of(place: str) -> Corpus | None:
    """The corpus in a file or folder; None for "". UserError where there is no text."""
    if not place:
        return None
    path = Path(place)
    files = sorted(path.rglob("*.txt")) if path.is_dir() else [path]
    try:
        texts = [file.read_text("utf-8") for file in files]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the corpus '{place}' cannot be read: {error}") from None
    passages = [p.strip() for text in texts for p in re.split(r"\n\s*\n", text) if p.strip()]
    if not passages:
        raise UserError(f"the corpus '{place}' holds no text; name a .txt file, or a folder of them")
    return Corpus(passages)
