"""Text as its tokens arrive, and where a stop string ends it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

HALF = "\ufffd"  # what a decoder writes for a character whose bytes are not all there


class TextStream:
    """The text of tokens that arrive one by one. Each piece is given out once and never changed: halves of characters,
    and what may be the beginning of a stop string, are held back."""

    def __init__(self, decode: Callable[[Sequence[int]], str], stops: Sequence[str] = ()) -> None:
        self.decode, self.stops = decode, stops
        self.tokens: list[int] = []
        self.stopped = False  # a stop string was met; the text ends before it
        self._begin = self._read = (
            0  # tokens[begin:read] are decoded again as what stands before the next ones
        )
        self._ready = ""  # text that may be given out
        self._held = ""  # text in which a stop string may begin

    def feed(self, token: int) -> bool:
        """Takes a token; True once a stop string is complete."""
        self.tokens.append(token)
        before, now = self._window()
        if not now.endswith(HALF):
            self._begin, self._read = self._read, len(self.tokens)
            self._add(now[len(before) :])
        return self.stopped

    def take(self) -> str:
        """The text that has become certain since the last call."""
        ready, self._ready = self._ready, ""
        return ready

    def rest(self) -> str:
        """What was held back, once no more tokens come."""
        if self.stopped:
            return self.take()
        before, now = self._window()
        self._read = self._begin = len(self.tokens)
        self._add(now[len(before) :])
        held = "" if self.stopped else self._held
        self._held = ""
        return self.take() + held

    def _window(self) -> tuple[str, str]:
        """The text of the last tokens without and with the new ones: what a token stands for can depend on the one
        before it, but not on those further away."""
        return self.decode(self.tokens[self._begin : self._read]), self.decode(self.tokens[self._begin :])

    def _add(self, text: str) -> None:
        held = self._held + text
        found = [at for stop in self.stops if (at := held.find(stop)) >= 0]
        if found:
            self._ready, self._held, self.stopped = self._ready + held[: min(found)], "", True
            return
        keep = max((_overlap(held, stop) for stop in self.stops), default=0)
        self._ready, self._held = self._ready + held[: len(held) - keep], held[len(held) - keep :]


def _overlap(text: str, stop: str) -> int:
    """Characters at the end of `text` with which `stop` begins."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)


def before(text: str, stops: Sequence[str], begin: int = 0) -> str:
    """`text` up to the first of the stop strings at character `begin` or later; all of it where there is none."""
    return text[: min((at for stop in stops if (at := text.find(stop, begin)) >= 0), default=len(text))]


def reached(
    decode: Callable[[Sequence[int]], str], tokens: Sequence[int], stops: Sequence[str]
) -> int | None:
    """How many of the tokens there are when one of the stop strings is complete; None where none is."""
    text = TextStream(decode, stops)
    return next((n for n, token in enumerate(tokens, 1) if text.feed(token)), None) if stops else None


class Pause:
    """Watches a reply until one of some texts, once something other than white space was said."""

    def __init__(self, until: Sequence[str], decode: Callable[[Sequence[int]], str]) -> None:
        self.until, self.decode = until, decode
        self.longest = max(map(len, until))
        self.tokens: list[int] = []
        self.said = self.reached = False

    def __call__(self, token: int, logp: float) -> bool:
        self.tokens.append(token)
        # of text that grows by a character a token at least
        tail = self.decode(self.tokens[-self.longest - 1 :])
        self.said = self.said or bool(tail.strip())
        self.reached = self.said and any(text in tail for text in self.until)
        return self.reached
