"""Where an answer stands in a reply, and text as it is compared."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

from etude.tasks.extract import tags

_QUOTES = str.maketrans(dict.fromkeys("‘’‚‛′`", "'") | dict.fromkeys("“”„‟″", '"'))
DASHES = str.maketrans(dict.fromkeys("−–‐‑﹣－", "-"))
_DRESSING = " \t\n.,;:!?。，、；：！？'\"*_`“”‘’„«»「」"


_RAISED = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+")


def raised(text: str) -> str:
    """Signs that compatibility forms would lose: x² is x^{2} (not x2), 2½ is 2 1/2 (not 21/2)."""
    text = _RAISED.sub(lambda m: f"^{{{unicodedata.normalize('NFKC', m[0]).translate(DASHES)}}}", text)
    return "".join(f" {c}" if unicodedata.decomposition(c).startswith("<fraction>") else c for c in text)


def folded(text: str) -> str:
    """Text as it is compared: compatibility forms, case, quotes, dashes and runs of white space are one."""
    text = unicodedata.normalize("NFKC", text).translate(_QUOTES).translate(DASHES)
    return " ".join(text.casefold().split())


def bare(text: str) -> str:
    """Text without what only dresses it: final stops, quotes, emphasis, `$`, \\text{...}, brackets around all of it."""
    before = None
    while before != text:
        before = text
        text = text.rstrip(_DRESSING).lstrip(_DRESSING.replace(".", ""))
        text = text.lstrip(".") if not re.match(r"\.\d", text) else text
        for opened, closed in (("$", "$"), ("\\(", "\\)"), ("\\[", "\\]")):
            if len(text) > len(opened) + len(closed) and text.startswith(opened) and text.endswith(closed):
                inner = text[len(opened) : -len(closed)]
                text = inner if opened not in inner else text
        text = re.sub(r"^\\(?:text|textbf|mathrm|mathbf|rm|mbox)\s*\{([^{}]*)\}$", r"\1", text)
    return text


ENDS = ("</think>", "</thinking>")
TAIL = 6000  # characters at the end of a reply in which its answer is looked for: bounds the work on a hostile text
_NEXT = re.compile(r"\n\s*(?:question|q|problem|user|human)\s*\d*\s*:", re.IGNORECASE)
_HASH = re.compile(r"####\s*([^\n]+)")
BOX = re.compile(r"\\f?box(?:ed)?(?![a-z])")
LEAD = re.compile(
    r"(?:\b(?:final\s+|correct\s+|right\s+)?(?:answer|result|solution|option|choice)\b[\"'*_`]*(?:\s+to\s[^.:\n]{0,60}?)?"
    r"\s*(?:is|are|was|equals|would\s+be|must\s+be|=|:)\s*:?|答案(?:是|为|：|:))\s*",
    re.IGNORECASE,
)


def said(reply: str) -> str:
    """The reply without its thinking, and without a next question that a model made up after its answer."""
    thought = max((reply.lower().rfind(end) + len(end) for end in ENDS if end in reply.lower()), default=0)
    text = reply[thought:]
    begun = [i for i in (text.lower().find(tag) for tag in ("<think>", "<thinking>")) if i >= 0]
    text = text[: min(begun)] if begun else text
    text = text[-TAIL:]
    cut = _NEXT.search(text)
    return text[: cut.start()] if cut and text[: cut.start()].strip() else text


def boxes(text: str) -> list[str]:
    """What stands in \\boxed{...}, \\fbox{...} or after \\boxed, in order."""
    found = []
    for match in list(BOX.finditer(text))[-16:]:
        rest = text[match.end() :].lstrip()
        if not rest.startswith("{"):
            found.append(re.split(r"[\s$]", rest, maxsplit=1)[0])
            continue
        depth = 0
        for i, letter in enumerate(rest):
            depth += {"{": 1, "}": -1}.get(letter, 0)
            if depth == 0:
                found.append(rest[1:i])
                break
    return found


@dataclass(frozen=True)
class AnswerPlace:
    """An answer as it stands in a reply. "whole" or in a "box": all of it is meant; otherwise it begins with the answer
    ("lead") or holds it somewhere ("line"). "alone": the answer must be all of the text (the strict reading)."""

    text: str
    how: str  # "whole" | "box" | "lead" | "line" | "alone"

    @property
    def all(self) -> bool:
        return self.how in ("whole", "box")


def places(reply: str, strict: bool = False) -> Iterator[AnswerPlace]:
    """Where the answer may stand, most telling first; the first that is there is the only one that counts, but for a lead
    ("the answer is"), after which the last line is looked at as well."""
    text = said(reply)
    for marks, how in (
        (boxes(text), "box"),
        ([tag.strip() for tag in tags(text)], "whole"),
        ([m.strip() for m in _HASH.findall(text)], "whole"),
    ):
        if marks:
            if not strict or len({folded(bare(m)) for m in marks}) == 1:
                yield AnswerPlace(marks[-1], "alone" if strict else how)
            return
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        return
    if strict:
        lead = re.match(
            r"\W*(?:so|thus|therefore|hence)?,?\s*(?:the\s+|my\s+)?" + LEAD.pattern, text, re.IGNORECASE
        )
        yield AnswerPlace((text[lead.end() :] if lead else text).strip(), "alone")
        return
    leads = list(LEAD.finditer(text))
    if leads:
        rest = text[leads[-1].end() :].strip()
        if rest:
            yield AnswerPlace(rest.splitlines()[0], "lead")
            return
    if len(lines) == 1:
        yield AnswerPlace(lines[0].strip(), "whole")
    yield AnswerPlace(lines[-1].strip(), "line")
