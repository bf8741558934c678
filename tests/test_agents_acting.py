"""Agents in a world of two doors: a tree of turns, and steps that a scripted expert judges. And programs that call what an earlier task left."""

import asyncio
from dataclasses import replace

import pytest

from etude.assembly import build
from etude.fixtures.given import GivenContext
from etude.fixtures.inference import Reply, Script, Spoken, example_question, judged, speaker
from etude.methods import find
from etude.methods.agents.agent_q import MOVES
from etude.methods.agents.sage import SKILLS, USED, Library
from etude.methods.agents.seagent import ADVERSE, BAD, PRACTICE
from etude.objective.preference import PAIR
from etude.rollout.conversation import Generator
from etude.rollout.group_rollout import GroupRollout
from etude.tools.tool import ToolError
from etude.types import Episode, Group, Request, SamplingParams, Signal, Task, Verdict
from test_tools_in_conversation import Speaking


class Doors:
    """Two doors; behind each one may open or shut a box. What is wanted lies behind the left one, in an open box."""

    def __init__(self, seed: int = 0) -> None:
        self.door = ""

    def observe(self) -> str:
        return "left or right?"

    def act(self, text: str) -> tuple[str, Verdict | None]:
        if not self.door:
            self.door = text
            return f"behind the {text} door", None
        right = (self.door, text) == ("left", "open")
        return "", Verdict(float(right), right)

    def expert(self) -> str:
        return "open" if self.door else "left"


def played(
    name: str, said: list[str], samples: int, **settings: object
) -> tuple[list[Episode], list[Signal]]:
    """The episodes of one group in this world, whose policy says this, and what they teach."""
    stages = build(find(name), {f"group_rollout.{k}": v for k, v in settings.items()})[1]
    task = replace(example_question("Get it."), environment=Doors)
    group = GroupRollout(
        task, Request(), samples, speaker(said), judged, stages["rollout"], stages["reward"], 0
    )
    episodes = asyncio.run(stages["group_rollout"](group))
    assert [e.failure for e in episodes] == [None] * len(episodes)
    return episodes, stages["credit"]([Group(task, tuple(episodes))], GivenContext())


def trained(signal: Signal, row: str = "policy") -> str:
    return Spoken().decode(signal.episode.tokens[signal.weights[row] > 0].tolist())


def test_a_tree_of_turns_is_searched_and_compared_where_it_parts() -> None:
    said = ["left", "right", "open", "open", "shut", "open"]
    episodes, signals = played("agent_q", said, 4, proposals=2, critic="nobody")
    # left, then the policy opens; left again, where two replies are tried one after another; then right.
    assert [e.reward for e in episodes] == [1.0, 1.0, 0.0, 0.0]
    assert [[m[:2] for m in e.notes[MOVES]] for e in episodes] == [
        [[0, 0]],
        [[0, 0], [1, 0]],
        [[0, 0], [1, 1]],
        [[0, 1]],
    ]
    told = [
        (trained(s), float(s.advantage.max() + s.advantage.min()), int(s.extras[PAIR][0])) for s in signals
    ]
    assert told == [("open", 1.0, 1), ("shut", -1.0, 1), ("left", 1.0, 2), ("right", -1.0, 2)]
    assert episodes[1].notes[MOVES][0][4] == pytest.approx(2 / 3)
    assert [e.index for e in episodes] == [0, 1, 2, 3]


def test_a_world_that_says_something_else_fails_the_course() -> None:
    class Moody(Doors):
        count = 0

        def act(self, text: str) -> tuple[str, Verdict | None]:
            said, verdict = super().act(text)
            Moody.count += 1
            return f"{said}{Moody.count}", verdict

    stages = build(find("agent_q"), {"group_rollout.critic": "nobody", "group_rollout.proposals": 1})[1]
    task = replace(example_question(), environment=Moody)
    said = ["left", "shut", "shut", "shut", "shut"]
    group = GroupRollout(task, Request(), 2, speaker(said), judged, stages["rollout"], stages["reward"], 0)
    first, second = asyncio.run(stages["group_rollout"](group))
    assert first.failure is None
    assert second.failure is not None
    assert "did not say the same" in second.failure.error


def test_a_step_that_an_expert_would_not_have_taken_is_made_less_likely() -> None:
    said = ["left", "open", "left", "shut", "left", "right", "left", "open"]
    episodes, signals = played("seagent", said, 2, practised=2, step_replies=2)
    won, lost, *practice = episodes
    assert [won.correct, lost.correct] == [True, False]
    assert won.notes[BAD] is None
    assert lost.notes[BAD] is not None
    assert [e.notes[PRACTICE][0] for e in practice] == [0, 0, 1, 1]
    adverse = [s for s in signals if ADVERSE in s.weights]
    assert [trained(s, ADVERSE) for s in adverse] == ["shut"]
    assert (
        adverse[0].advantage[adverse[0].weights[ADVERSE] > 0].tolist() == [-1.0] * 5
    )  # with the token that ends it
    goods = {e.notes[PRACTICE][1] for e in practice}
    assert goods <= {"left", "open"}  # no step after the bad one, nor the bad one itself


def test_programs_call_what_earlier_programs_left() -> None:
    kept = Library()
    assert kept.run("def twice(x):\n    return 2 * x\n\nprint(twice(3))").strip() == "6"
    assert list(kept.skills) == ["twice"]
    assert not kept.used  # it is of this task
    kept.before = set(kept.skills)
    with pytest.raises(ToolError, match="ZeroDivisionError"):
        kept.run("def bad(x):\n    return x\n\ntwice(1 / 0)")
    assert list(kept.skills) == ["twice"]
    assert not kept.used  # the program that called it failed
    with pytest.raises(ToolError, match="line 1"):
        kept.run("print(")
    assert kept.run("print(twice(4))").strip() == "8"
    assert kept.used == {"twice"}


class Chain:
    """Tasks of one kind, of which the second is always the same."""

    def levels(self, kind: str) -> tuple[float, ...]:
        return (0.0,)

    def draw(self, request: Request, index: int, seed: int) -> Task:
        return replace(example_question("3 more?"), kind=request.kind)


def test_a_skill_of_the_first_task_is_at_hand_in_the_second_and_pays() -> None:
    stages = build(find("sage"))[1]
    stages["group_rollout"].prepare(Chain())
    said = [
        "<python>def twice(x):\n    return 2 * x\n\nprint(twice(2))</python>",
        "7",
        "<python>print(twice(4))</python>",
        "7",
    ]
    script = Script([Reply(text) for text in said])
    policy = Generator(script, Speaking(), SamplingParams(max_tokens=500))  # type: ignore[arg-type]
    group = GroupRollout(
        example_question(), Request(), 1, policy, judged, stages["rollout"], stages["reward"], 0
    )
    (episode,) = asyncio.run(stages["group_rollout"](group))
    assert episode.failure is None
    assert list(episode.notes[SKILLS]) == ["twice"]
    assert episode.notes[USED] == ["twice"]
    assert episode.notes["calls_each"] == [1, 1]
    assert episode.scores == {"reward": 2.0, "first": 2.0, "second": 2.0, "skill": 1.0}
    assert "def twice" not in script.asked[0]
    assert "def twice" in script.asked[2]
    assert [call["result"].strip() for call in episode.notes["tools"]] == ["4", "8"]
    assert episode.task.key == example_question().key
