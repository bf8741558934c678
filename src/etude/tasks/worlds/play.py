"""What the small worlds share: commands in words, turns that are counted, milestones, and an expert who knows no more than it saw."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Literal

from etude.tasks.game import move_of
from etude.tasks.kind import FEEDBACK, LEVEL, feedback_text
from etude.tasks.spec import Param
from etude.tasks.worlds.commands import Form, as_tools, call_of, written
from etude.text.tool_calls import Call
from etude.types import Verdict

TURNS = Param(
    "turns", int, 0, "turns allowed; 0: as many as the level gives, and twice as many as the expert needs"
)
LISTED = Param("listed", bool, True, "say after every turn what can be done")
PARTIAL = Param("partial", bool, False, "a failed attempt gets its share of the milestones as its reward")
COMMANDS = Param(
    "commands",
    Literal["words", "tools"],
    "words",
    "how they are given: words of a reply, or calls of tools in the model's own syntax",
)
COMMON = (TURNS, LISTED, PARTIAL, COMMANDS, FEEDBACK, LEVEL)

FREE = 1000  # turns in which any expert ends
UNKNOWN = "That cannot be done."
OVER = "It is over: nothing more can be done."
CALL = "Act by calling tools; several calls of one reply are carried out one after another, each as a turn."
_PREFIX = re.compile(r"^(?:>|action:|command:|i (?:will|would) )\s*", re.IGNORECASE)


@dataclass(frozen=True)
class Rules:
    """How a world is played, whatever it is. `turns`: after so many the attempt is over."""

    turns: int
    listed: bool = True
    partial: bool = False
    feedback: str = "unary"
    tools: bool = False  # commands are offered as tools

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Rules:
        """From the settings of a kind; without `turns` there is no limit yet (`limited`)."""
        return cls(
            settings["turns"] or FREE,
            settings["listed"],
            settings["partial"],
            settings["feedback"],
            settings["commands"] == "tools",
        )

    def ask(self, words: str) -> str:
        """What a prompt says of how to act: `words`, or that tools are to be called."""
        return CALL if self.tools else f"Each turn, reply with {words}."


class World:
    """One attempt: `etude.types.Environment`. A world of its own has the methods that raise NotImplementedError here.

    `plan`: what the world is made of, with its `rules`; calling it makes a new attempt. Where the rules say that commands are
    tools, `tools` has one for each; a reply that calls none is still read as a command in words, which costs a turn."""

    forms: ClassVar[Sequence[Form]] = ()  # its commands, the most special first
    failed: ClassVar[str] = "You did not manage it."
    code: ClassVar[bool] = (
        False  # commands hold code, so that quotes and full stops at their ends belong to them
    )

    def __init__(self, plan: Any) -> None:
        self._plan = plan
        self.rules: Rules = plan.rules
        self.taken = 0  # turns so far
        self.commands: list[str] = []
        self._verdict: Verdict | None = None
        self._said = ""  # what came of the command that ended it

    # ---- what a world has -----------------------------------------------------------------------------

    def look(self) -> str:
        """What is seen now."""
        raise NotImplementedError

    def actions(self) -> list[str]:
        """Commands that can be given now; where words are free, those that a player could think of."""
        raise NotImplementedError

    def do(self, command: str) -> str | None:
        """Carries out a command: what comes of it ("" where what is seen says it); None where it cannot be done."""
        raise NotImplementedError

    def milestones(self) -> Sequence[tuple[str, bool]]:
        """What must come about, in order, and whether it has; the attempt has succeeded when all have."""
        raise NotImplementedError

    def expert(self) -> str:
        """What a player who knows what was seen so far, and no more, does next."""
        raise NotImplementedError

    def lost(self) -> bool:
        """Whether the attempt cannot succeed any more."""
        return False

    # ---- what all have --------------------------------------------------------------------------------

    @property
    def done(self) -> bool:
        """Whether the attempt is over."""
        return self._verdict is not None

    @cached_property
    def tools(self) -> list[Any]:
        """Its commands as typed functions; none where commands are words."""
        return as_tools(self.forms, self._called) if self.rules.tools else []

    @property
    def over(self) -> bool:
        """Whether a call has ended the attempt, so that `act` gives the verdict."""
        return self.done and self.rules.tools

    @property
    def longest(self) -> int:
        """Calls that an attempt may take, beside those that run.turns and run.tool_calls allow."""
        return self.rules.turns if self.rules.tools else 0

    def as_call(self, command: str) -> Call | None:
        """The call that stands for a command; None where commands are words, or none does."""
        return call_of(self.forms, command) if self.rules.tools else None

    def observe(self) -> str:
        """What is seen, and, where the rules say so, what can be done."""
        return self._shown("")

    def act(self, text: str) -> tuple[str, Verdict | None]:
        """Carries out the command that a reply names: what it marks as its answer, else its last line. After a call that was
        the last: the verdict. Raises RuntimeError after the end."""
        if self._verdict is not None:
            if self._said:
                said, self._said = self._said, ""
                return said, self._verdict
            raise RuntimeError("this attempt is over: call task.environment() for a new one")
        return self._carried(command_of(text, self.code))

    def _called(self, command: str) -> str:
        """What a call gives."""
        if self._verdict is not None:
            return OVER
        said, verdict = self._carried(" ".join(command.split()))
        self._said = said if verdict is not None else ""
        return said

    def _carried(self, command: str) -> tuple[str, Verdict | None]:
        self.taken += 1
        self.commands.append(command)
        said = self.do(command)
        reached = [done for _, done in self.milestones()]
        if all(reached):
            self._verdict = Verdict(1.0, True)
            return f"{said or ''} You have done it.".strip(), self._verdict
        if self.lost() or self.taken >= self.rules.turns:
            why = "That was the end." if self.lost() else "You have no turns left."
            self._verdict = self._lost(sum(reached) / len(reached))
            return f"{UNKNOWN if said is None else said} {why}".strip(), self._verdict
        return self._shown(UNKNOWN if said is None else said), None

    def solve(self) -> list[str]:
        """The expert's commands from the beginning of this world to its end."""
        again, replies = self._plan(), []
        while not again.done:
            replies.append(again.expert())
            again.act(replies[-1])
        return replies

    def _shown(self, said: str) -> str:
        lines = [said, self.look()]
        if self.rules.listed:
            lines.append(f"You can: {'; '.join(map(self._named, self.offered()))}")
        return "\n".join(line for line in lines if line)

    def offered(self) -> list[str]:
        """What a player is told that can be done; forms of commands where there are too many."""
        return self.actions()

    def _named(self, command: str) -> str:
        """A command as it is given here."""
        call = self.as_call(command)
        return command if call is None else written(call)

    def _lost(self, share: float) -> Verdict:
        missing = next(what for what, done in self.milestones() if not done)
        hint = f"{self.failed} What was missing: {missing}."
        full = (
            f"{hint} A way that works: {'; '.join(map(self._named, self.solve()))}."
            if self.rules.feedback == "full"
            else ""
        )
        said = feedback_text(self.rules.feedback, self.failed, hint, full)
        return Verdict(share if self.rules.partial else 0.0, False, said)


def limited(plan: Any, settings: Mapping[str, Any]) -> Any:
    """The plan of a world with its number of turns: those given, else the level's `longest`, or twice what the expert needs."""
    if settings["turns"]:
        return plan
    turns = max(settings["longest"], 2 * len(plan().solve()))
    return replace(plan, rules=replace(plan.rules, turns=turns))


def command_of(text: str, code: bool = False) -> str:
    """The command in a reply, without dressing, in one line of single spaces."""
    marks = "` \t" if code else "`*\"'“” \t"
    found = _PREFIX.sub("", move_of(text).strip(marks)).strip(marks)
    return " ".join(found.split()).rstrip("" if code else ".!")


def words_of(text: str) -> list[str]:
    """Its words, lower case."""
    return re.findall(r"[a-z0-9]+", text.lower())
