"""What the small worlds share: commands in words, turns that are counted, milestones, and an expert who knows no more than it saw."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from etude.tasks.kind import FEEDBACK, LEVEL, feedback_text
from etude.tasks.spec import Param
from etude.tasks.worlds.commands import COMMANDS, TOOLS, Commanded, asked
from etude.types import Verdict

TURNS = Param(
    "turns", int, 0, "turns allowed; 0: as many as the level gives, and twice as many as the expert needs"
)
LISTED = Param("listed", bool, True, "say after every turn what can be done")
PARTIAL = Param("partial", bool, False, "a failed attempt gets its share of the milestones as its reward")
COMMON = (TURNS, LISTED, PARTIAL, COMMANDS, FEEDBACK, LEVEL)

FREE = 1000  # turns in which any expert ends
UNKNOWN = "That cannot be done."


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
            settings["commands"] == TOOLS,
        )

    def ask(self, words: str) -> str:
        """What a prompt says of how to act: `words`, or that tools are to be called."""
        return asked(words, self.tools)


class World(Commanded):
    """One attempt: `etude.types.Environment`. A world of its own has the methods that raise NotImplementedError here.

    `plan`: what the world is made of, with its `rules`; calling it makes a new attempt. Where the rules say that commands are
    tools, `tools` has one for each; a reply that calls none is still read as a command in words, which costs a turn."""

    failed: ClassVar[str] = "You did not manage it."

    def __init__(self, plan: Any) -> None:
        super().__init__(plan.rules.tools, plan.rules.turns)
        self._plan = plan
        self.rules: Rules = plan.rules
        self.taken = 0  # turns so far
        self.commands: list[str] = []

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

    def observe(self) -> str:
        """What is seen, and, where the rules say so, what can be done."""
        return self._shown("")

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


def words_of(text: str) -> list[str]:
    """Its words, lower case."""
    return re.findall(r"[a-z0-9]+", text.lower())
