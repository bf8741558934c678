"""Agents that look things up, with real texts and tools: where a search takes the policy's place, and who is offered tools."""

import asyncio
import json
import string
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from etude.assembly import build
from etude.data.items import read
from etude.data.session import Order, make
from etude.data.workshop import Workshop
from etude.errors import UserError
from etude.fixtures.inference import Reply, Spoken, example_question, judged, speaker
from etude.methods import find
from etude.methods.agents.hybrid_deep_searcher import Library
from etude.methods.agents.ssrl import INFORMATION, tokens_of
from etude.methods.agents.ur2 import HARD, START
from etude.models.tiny import tiny_directory
from etude.rollout.conversation import Conversation
from etude.rollout.group_rollout import GroupRollout
from etude.tools.kit import Kit
from etude.types import Episode, Request
from test_tools_in_conversation import Speaking


def searched(place: Path, *said: str | Reply, **settings: object) -> Episode:
    """An answer of SSRL to a question whose answer is 7, with two passages to be found."""
    (place / "texts.txt").write_text("Oslo has 7 hills.\n\nRome has 8.")
    stages = build(find("ssrl"), {f"rollout.{k}": v for k, v in {"corpus": str(place), **settings}.items()})[
        1
    ]
    task = example_question()
    return asyncio.run(stages["rollout"](task, Conversation(task, speaker(said), judged, 0)))


def told(episode: Episode) -> list[str]:
    """What was put in, not sampled."""
    return [
        Spoken().decode(s.tokens.tolist()) for s in episode.spans if s.tag == INFORMATION and not s.sampled
    ]


def test_a_real_search_takes_the_place_of_the_policys_own(tmp_path: Path) -> None:
    episode = searched(tmp_path, "<search>Oslo</search>", "<answer>7</answer>")
    assert "".join(told(episode)).strip() == "<information>\nOslo has 7 hills.\n</information>"
    assert episode.correct
    assert episode.notes["looked_up"] == 1
    assert not any(s.tag == INFORMATION and s.sampled for s in episode.spans)


def test_an_unsure_query_is_looked_up_and_a_surer_one_is_not(tmp_path: Path) -> None:
    said = (
        Reply("<search>Oslo</search>", logp=-1.0),
        Reply("<search>Rome</search>", logp=-0.01),
        Reply("<information>8</information><answer>7</answer>"),
    )
    episode = searched(tmp_path, *said, unsure=True)
    assert episode.notes["looked_up"] == 1
    own = [Spoken().decode(s.tokens.tolist()) for s in episode.spans if s.tag == INFORMATION and s.sampled]
    assert own == ["<information>8</information>"]
    again = (replace(said[0], logp=-0.01), replace(said[1], logp=-1.0), Reply("<answer>7</answer>"))
    assert searched(tmp_path, *again, unsure=True).notes["looked_up"] == 2


def test_tokens_that_hold_a_sign_of_a_passage() -> None:
    class Pairs:
        """A token is two letters."""

        def decode(self, tokens: list[int]) -> str:
            return "".join(f"{t:02d}" for t in tokens)

    tokens = np.array([11, 22, 33, 44], np.int32)
    assert tokens_of(tokens, (2, 4), Pairs()) == (1, 2)  # type: ignore[arg-type]
    assert tokens_of(tokens, (3, 5), Pairs()) == (1, 3)  # type: ignore[arg-type]


@pytest.mark.parametrize(("start", "hard"), [("7", False), ("8", True)])
def test_only_hard_tasks_are_offered_tools(start: str, hard: bool) -> None:
    stages = build(find("ur2"), {"group_rollout.start_answers": 1})[1]
    offered: list[bool] = []

    async def rollout(task: object, conversation: Conversation) -> Episode:
        offered.append(conversation.tools() is not None)
        conversation.user("?")
        await conversation.check(await conversation.reply())
        return conversation.done()

    kit = Kit([Library()])
    rollouts = GroupRollout(
        example_question(),
        Request(),
        2,
        replace(speaker(["7", "7"]), kit=kit, renderer=Speaking()),  # type: ignore[arg-type]
        judged,
        rollout,  # type: ignore[arg-type]
        stages["reward"],
        0,
        generators={START: replace(speaker([start]), kit=kit)},
    )
    played = asyncio.run(stages["group_rollout"](rollouts))
    assert [e.failure for e in played] == [None, None]
    assert [e.notes[HARD] for e in played] == [hard, hard]
    assert offered == [False, hard, hard]  # the start never has any


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("mask_search", r"needs texts: --set group_rollout\.corpus"),
        ("skill0", r"needs skills: --set group_rollout\.skills"),
    ],
)
def test_without_texts_or_skills_a_run_is_refused(name: str, says: str) -> None:
    class Bare:
        def different(self, number: int, seed: int) -> list[object]:
            return [replace(example_question(), reference=None)] * number

    stage = build(find(name))[1]["group_rollout"]
    with pytest.raises(UserError, match=says):
        stage.prepare(Bare())


def test_a_name_is_replaced_by_what_a_corpus_tells_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    questions = [("Who rules Oslo?", "Bo"), ("Who rules Rome?", "Al"), ("Who?", "Cy")]
    rows = [json.dumps({"prompt": q, "answer": a}) for q, a in questions]
    (tmp_path / "q.jsonl").write_text("\n".join(rows))
    (tmp_path / "corpus.txt").write_text(
        "Oslo is cold.\n\nOslo has hills.\n\nBo rules Oslo.\n\nRome is old.\n\nNo more."
    )
    told = {
        "Oslo is cold.": "is cold.",
        "Oslo has hills.": "'has hills'",
        "Bo rules Oslo.": "Bo rules",
        "Rome is old.": "is Rome",
    }

    def said(self: Workshop, prompts: Any, why: str, who: str = "policy", **params: Any) -> list[str]:
        asked = [p[-1].content for p in prompts]
        if why == "entity":
            return [next((n for n in ("Oslo", "Rome") if n in a), "Ulm") for a in asked]
        return [told[a.split("\n\n")[0]] for a in asked]

    monkeypatch.setattr(Workshop, "said", said)
    monkeypatch.setattr(Workshop, "attempts", lambda self, tasks, samples, **more: [[] for _ in tasks])
    changes = {"hybrid_hops.corpus": str(tmp_path / "corpus.txt"), "hybrid_hops.attributes": "2"}
    model = str(
        tiny_directory(tmp_path / "tiny", string.printable, layers=1, width=32, heads=2, kv_heads=1, seed=3)
    )
    order = Order("hybrid_hops", tmp_path / "out", 3, changes=changes, say=lambda text: None)
    make(order, str(tmp_path / "q.jsonl"), model)
    (only,) = read(tmp_path / "out" / "data.jsonl")
    assert only.prompt in (
        "Who rules the one that is cold and that has hills?",
        "Who rules the one that has hills and that is cold?",
    )
    assert (only.row["answer"], only.came["entity"]) == ("Bo", "Oslo")  # its third passage tells the answer
