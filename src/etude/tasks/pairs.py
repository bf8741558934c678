"""Answers of which one is preferred, as other tools write them: TRL's preference data (with an explicit or an implicit
prompt, as text or as conversations, and its unpaired form), UltraFeedback (the original and the binarised), HelpSteer2's
preferences, Anthropic's dialogues, and prompts with several rejected answers as in RewardBench 2.

What was understood stands in `Task.meta`: `chosen` and `rejected`, text, of which an unpaired answer has one; `strength`, how
much better the chosen one is (1 where nothing says); `rating_chosen` and `rating_rejected` where both were rated; `item`, the
same for all pairs of one row.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from etude.errors import UserError
from etude.tasks.rows import kind_name

CHOSEN, REJECTED, STRENGTH, ITEM = "chosen", "rejected", "strength", "item"
RATINGS = ("rating_chosen", "rating_rejected")
SCORES = ("score_chosen", "score_rejected")  # columns of UltraFeedback binarised
PROMPTS = ("prompt", "instruction", "question", "query")
_TURN = re.compile(r"\n\n(Human|Assistant): ?")
_ROLES = {"Human": "user", "Assistant": "assistant"}

Row = Mapping[str, Any]


def holds_pair(row: Row, answered: bool = False) -> bool:
    """Whether a row holds preferences and, unless it may be `answered`, no answer that could be checked."""
    if "answer" in row and not answered:
        return False
    paired = "chosen" in row and "rejected" in row
    rated = isinstance(row.get("completions"), list | tuple) and any(p in row for p in PROMPTS)
    compared = "response_1" in row and "response_2" in row and "preference_strength" in row
    return paired or rated or compared or ("completion" in row and isinstance(row.get("label"), bool))


def pairs_of_row(row: Row, where: str) -> list[dict[str, Any]]:
    """One {"prompt", further columns...} for every pair of a row for which `holds_pair`; none where two answers are equally
    good. Raises UserError naming what cannot be read."""
    if "chosen" in row:
        found = _explicit(row, where)
    elif "completions" in row:
        found = _rated(row, where)
    elif "response_1" in row:
        found = _compared(row, where)
    else:
        side = CHOSEN if row["label"] else REJECTED
        found = [{"prompt": _asked(row, where), side: _reply(row["completion"], where, "completion")}]
    for pair in found:
        if pair.get(CHOSEN) is not None and pair.get(CHOSEN) == pair.get(REJECTED):
            raise UserError(f"{where}: 'chosen' and 'rejected' are the same answer")
    return found


def _explicit(row: Row, where: str) -> list[dict[str, Any]]:
    given = row["rejected"]
    several = isinstance(given, Sequence) and not isinstance(given, str) and _several(given)
    rejected = list(given) if several else [given]
    best = row["chosen"]
    if isinstance(best, list | tuple) and len(best) == 1 and isinstance(best[0], str):
        best = best[0]
    found = []
    for other in rejected:
        prompt, chosen, worse = _split(row, best, other, where)
        found.append({"prompt": prompt, CHOSEN: chosen, REJECTED: worse, **_much(row, where)})
    return found


def _several(given: Sequence[Any]) -> bool:
    return bool(given) and all(isinstance(x, str) for x in given)


def _split(row: Row, chosen: Any, rejected: Any, where: str) -> tuple[Any, str, str]:
    """The prompt and both answers. Conversations may repeat the prompt; without a prompt it is what both share."""
    if isinstance(chosen, str) != isinstance(rejected, str):
        raise UserError(f"{where}: 'chosen' and 'rejected' must both be text, or both lists of messages")
    if not any(name in row for name in PROMPTS):
        return _implicit(chosen, rejected, where)
    prompt = _asked(row, where)
    if isinstance(chosen, str):
        return prompt, _words(chosen, where, "chosen"), _words(rejected, where, "rejected")
    sides = [_messages(side, where, name) for side, name in ((chosen, "chosen"), (rejected, "rejected"))]
    if len(sides[0]) == 1 and len(sides[1]) == 1:
        return prompt, _last(sides[0], where, "chosen"), _last(sides[1], where, "rejected")
    shared = _shared(*sides)
    if shared and any(
        m["role"] == "user" for m in sides[0][:shared]
    ):  # the conversations hold the prompt too
        return _implicit(chosen, rejected, where)
    raise UserError(
        f"{where}: 'chosen' and 'rejected' must each be one answer to 'prompt', or the same conversation with "
        "another last message"
    )


def _implicit(chosen: Any, rejected: Any, where: str) -> tuple[Any, str, str]:
    if isinstance(chosen, str):
        both = [_dialogue(side) for side in (chosen, rejected)]
        if all(both):
            return _implicit(both[0], both[1], where)
        size = next(
            (i for i, (a, b) in enumerate(zip(chosen, rejected, strict=False)) if a != b),
            min(len(chosen), len(rejected)),
        )
        while size and not chosen[size - 1].isspace():  # never within a word
            size -= 1
        prompt = chosen[:size].strip()
        if not prompt:
            raise UserError(
                f"{where}: there is no 'prompt', and 'chosen' and 'rejected' do not begin alike; add the prompt"
            )
        return (
            prompt,
            _words(chosen[size:], where, "chosen"),
            _words(rejected[size:], where, "rejected"),
        )
    sides = [_messages(side, where, name) for side, name in ((chosen, "chosen"), (rejected, "rejected"))]
    shared = _shared(*sides)
    if not shared or any(len(side) != shared + 1 for side in sides):
        raise UserError(
            f"{where}: 'chosen' and 'rejected' must be the same conversation with another last message"
        )
    return sides[0][:shared], _last(sides[0], where, "chosen"), _last(sides[1], where, "rejected")


def _shared(one: Sequence[Any], other: Sequence[Any]) -> int:
    """How many messages both begin with, short of the last of either."""
    most = min(len(one), len(other)) - 1
    return next((i for i in range(most) if one[i] != other[i]), max(0, most))


def _dialogue(text: str) -> list[dict[str, str]]:
    """Messages of "\\n\\nHuman: ...\\n\\nAssistant: ..."; none where the text is no such dialogue."""
    parts = _TURN.split("\n\n" + text.lstrip())
    if parts[0].strip() or len(parts) < 5:
        return []
    said = zip(parts[1::2], parts[2::2], strict=True)
    return [{"role": _ROLES[role], "content": words.strip()} for role, words in said]


def _rated(row: Row, where: str) -> list[dict[str, Any]]:
    """UltraFeedback: the best against the worst of the rated completions; none where all are rated alike."""
    rated = []
    for one in row["completions"]:
        score = one.get("overall_score", one.get("score")) if isinstance(one, Mapping) else None
        text = one.get("response", one.get("content")) if isinstance(one, Mapping) else None
        if not isinstance(text, str) or isinstance(score, bool) or not isinstance(score, int | float):
            raise UserError(
                f"{where}: each of 'completions' must hold 'response', text, and 'overall_score', a number"
            )
        rated.append((float(score), text))
    if len(rated) < 2 or max(rated)[0] <= min(rated)[0]:
        return []
    (most, best), (least, worst) = max(rated, key=lambda r: r[0]), min(rated, key=lambda r: r[0])
    ratings = dict(zip(RATINGS, (most, least), strict=True))
    return [{"prompt": _asked(row, where), CHOSEN: best, REJECTED: worst, **ratings}]


def _compared(row: Row, where: str) -> list[dict[str, Any]]:
    """HelpSteer2: a strength from -3 (the first is much better) to 3 (the second is)."""
    strength = row["preference_strength"]
    if isinstance(strength, bool) or not isinstance(strength, int | float) or not math.isfinite(strength):
        raise UserError(f"{where}: 'preference_strength' must be a number, from -3 to 3")
    if strength == 0:
        return []
    one, two = (_reply(row[name], where, name) for name in ("response_1", "response_2"))
    chosen, rejected = (two, one) if strength > 0 else (one, two)
    return [
        {"prompt": _asked(row, where), CHOSEN: chosen, REJECTED: rejected, STRENGTH: abs(float(strength))}
    ]


def _much(row: Row, where: str) -> dict[str, float]:
    """How much better the chosen answer is, as far as the row says."""
    found: dict[str, float] = {}
    for name in ("strength", "margin", "preference_strength"):
        if name in row:
            found[STRENGTH] = abs(_figure(row[name], where, name))
            break
    for names in (SCORES, RATINGS):
        if all(name in row for name in names):
            found |= {own: _figure(row[n], where, n) for own, n in zip(RATINGS, names, strict=True)}
    return found


def _figure(value: Any, where: str, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise UserError(f"{where}: '{name}' must be a finite number, not {kind_name(value)}")
    return float(value)


def _asked(row: Row, where: str) -> Any:
    for name in PROMPTS:
        if name in row:
            return row[name]
    raise UserError(f"{where}: the field 'prompt' is missing")


def _reply(given: Any, where: str, name: str) -> str:
    if isinstance(given, str):
        return _words(given, where, name)
    return _last(_messages(given, where, name), where, name)


def _words(text: Any, where: str, name: str) -> str:
    if not isinstance(text, str) or not text.strip():
        raise UserError(f"{where}: '{name}' must be text that is not empty")
    return text.strip()


def _messages(given: Any, where: str, name: str) -> list[dict[str, str]]:
    good = isinstance(given, list | tuple) and all(
        isinstance(m, Mapping) and isinstance(m.get("content"), str) and isinstance(m.get("role"), str)
        for m in given
    )
    if not good or not given:
        raise UserError(f"{where}: '{name}' must be text, or a list of messages with role and content")
    return [{"role": m["role"], "content": m["content"]} for m in given]


def _last(messages: Sequence[Mapping[str, str]], where: str, name: str) -> str:
    if messages[-1]["role"] != "assistant":
        raise UserError(f"{where}: the last message of '{name}' must have the role assistant")
    return _words(messages[-1]["content"], where, name)
