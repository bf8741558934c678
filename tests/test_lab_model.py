"""The laboratory's models: what is shipped is what the command makes, words it reads, and abilities that are measured."""

import asyncio
import json
from dataclasses import replace

import pytest

import toys
from etude import seeds
from etude.claims.settings import load as claims
from etude.lab import abilities, model, teaching, vocabulary
from etude.lab.lessons import LESSONS
from etude.lab.model import SHIPPED, Teaching, directory
from etude.lab.problems import KINDS
from etude.lab.protocols import PROTOCOLS
from etude.lab.tasks import CHECK, MAX_TOKENS, first_wrong, lab_task, problem, steps_right, taught
from etude.lab.teacher import SLIPS, Teacher
from etude.lab.worlds import marked
from etude.models.policy import Policy
from etude.rollout.conversation import Conversation
from etude.text.tokenizer import read as read_tokenizer

SMALL = Teaching(
    ((1e-3, (("basics", 1),)), (1e-3, (("protocols", 1),))), layers=1, width=32, heads=2, batch=4
)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return directory(SMALL, tmp_path_factory.mktemp("models"))


# ---- what is shipped -------------------------------------------------------------------------------------------------


def test_what_is_shipped_was_made_from_what_is_taught():
    found = model.facts(SHIPPED)
    assert found["key"] == Teaching().key, "what is taught has changed; run: python -m etude.lab.model"
    assert directory() == SHIPPED
    assert sum(p.stat().st_size for p in SHIPPED.iterdir()) < 10_000_000


def test_a_damaged_shipped_model_is_noticed(tmp_path, monkeypatch):
    for file in SHIPPED.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    assert model._whole(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    assert not model._whole(tmp_path)


def test_the_model_reads_what_the_recipes_say():
    """A recipe whose words are strange to the model cannot be tested on it: teach the model anew, or say so with its claim."""
    backend = read_tokenizer(SHIPPED).backend
    tested = {claim.recipe for claim in claims() if claim.on == "lab" and not claim.untested}
    said = []
    for where, text in vocabulary.default_texts().items():
        method = where.split()[0].removeprefix("etude.methods.").split(".")
        if len(method) < 4 and not tested & {method[0], *method[1:2]}:
            continue
        strange = vocabulary.unknown(backend, text)
        assert len(strange) <= len(vocabulary.words_of([text])) / 8, f"{where}: {strange}"
        said.append(text)
    words = vocabulary.words_of(said)
    assert sum(backend.token_to_id(word) is None for word in words) <= len(words) / 20


# ---- words -----------------------------------------------------------------------------------------------------------


def test_words_digits_and_letters_are_a_token_each():
    backend = vocabulary.tokenizer(["Line", "is", "wrong", "RATIONALE"])

    def pieces(text):
        return backend.encode(text).tokens

    assert pieces("Line 2 is wrong.") == ["Line", " ", "2", " is", " wrong", "."]
    assert pieces("Line 2 is odd.") == ["Line", " ", "2", " is", "<unk>", "."], "not letters"
    assert pieces("LINE is\nD4=14") == ["L", "I", "N", "E", " is", "\n", "D", "4", "=", "1", "4"]
    assert pieces("[RATIONALE]") == ["[", "RATIONALE", "]"]
    assert pieces("RATIONALES") == list("RATIONALES")
    assert pieces("<answer>AB</answer>") == ["<answer>", "A", "B", "</answer>"]
    for text in ("Line 2 is wrong.", "RATIONALE is wrong\n\nLine"):
        assert backend.decode(backend.encode(text).ids) == text


def test_solutions_fit_into_the_limit():
    backend = vocabulary.tokenizer(teaching.words())
    for kind in KINDS:
        for level in range(5):
            task = lab_task(kind, level, 1)
            lines = [*task.meta["steps"]] if level > 1 else [*task.meta["steps"], CHECK, *task.meta["steps"]]
            tokens = backend.encode(marked(lines, task.answer)).tokens
            assert len(tokens) + 1 <= MAX_TOKENS
            assert "<unk>" not in tokens + backend.encode(task.prompt[0].content).tokens


def test_the_words_come_from_the_recipes():
    texts = vocabulary.default_texts()
    assert any("What would help you" in text for text in texts.values())
    assert any("Doubt it" in text for text in texts.values()), "each of several texts under one name"
    assert {"reconsider"} & set(vocabulary.words_of(["Please {reconsider} <b>this</b>"])) == set()
    assert vocabulary.words_of(["Say {question} NUMBER SORT this"]) == ["NUMBER", "Say", "this"]
    assert vocabulary.words_of(["Say NUMBER"], shouted=False) == ["Say"]


# ---- what is taught --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(PROTOCOLS))
def test_examples_are_of_the_taught_quarter_and_mostly_right(name):
    kind = "lock" if name == "world" else "sum"
    right = total = 0
    for i in range(60):
        teacher = Teacher(kind, 0, seeds.generator("examples", name, i))
        assert taught(teacher.question)
        said = PROTOCOLS[name][1](teacher)
        assert said[-1].learnt
        assert [s for s in said if s.learnt and s.role != "assistant"] == []
        assert "None" not in "".join(s.text for s in said)
        if name in (
            "plain",
            "hint",
            "feedback_chat",
            "feedback_prompt",
            "reconsider",
            "improve",
            "advised",
            "plan",
        ):
            total += 1
            right += teacher.task.check(said[-1].text).correct
            assert steps_right(teacher.task, said[-1].text) or not teacher.task.check(said[-1].text).correct
    assert not total or right / total > 0.5


def test_copies_and_lookups_are_answered_as_asked():
    drawn = [LESSONS["lookups"](seeds.generator("lookups", i))[1] for i in range(80)]
    own = [
        (asked.text.removeprefix("write "), answer.text) for asked, answer in drawn if "write" in asked.text
    ]
    looked = [(said, answer) for said, answer in own if " in " in said]
    assert 20 < len(looked) < 45
    assert 5 < len(own) - len(looked) < 30
    for said, answer in own:
        wanted, _, listed = said.partition(" in ")
        table = {pair[0]: pair for pair in listed.split()}
        right = [table[letter] for letter in wanted.split()] if listed else [wanted.split(" ")[1]]
        assert answer.split("\n") == right


def test_a_critique_names_the_first_wrong_line():
    found = []
    for i in range(80):
        teacher = Teacher("run", 1, seeds.generator("critique", i))
        asked, answer = PROTOCOLS["critique"][1](teacher)
        attempt = asked.text.split("earlier answer:\n")[1].split("\n\n")[0]
        wrong = first_wrong(teacher.lines, attempt)
        found.append(answer.text.endswith(f"Line {wrong} is wrong." if wrong else "It is right."))
    assert 0.8 < sum(found) / 80 < 1


def test_only_what_the_model_says_is_imitated(small):
    policy = Policy.load(str(small))
    for signal in teaching.signals(policy.renderer, "protocols", 60, 0, 0):
        on = signal.weights["imitation"] > 0
        assert on.any()
        assert on[-1]
        spans = signal.episode.spans
        assert on.sum() == sum(len(s) for s in spans if s.tag == "demonstration")
        assert not any(s.tag for s in spans if s.role == "user")
    teacher = Teacher("sum", 0, seeds.generator(0))
    said = PROTOCOLS["wait"][1](teacher)
    signal = teaching.laid_out(policy.renderer, teacher.task, said)
    assert policy.renderer.decode(signal.episode.tokens) == "".join(s.text for s in said)
    ends = policy.renderer.stops[0]
    assert (signal.episode.tokens == ends).sum() == 2, "a turn that goes on is one turn"


# ---- making ----------------------------------------------------------------------------------------------------------


def test_made_once_whole_and_again_when_damaged(tmp_path, capsys):
    place = directory(SMALL, tmp_path)
    weights = (place / "model.safetensors").read_bytes()
    assert place.name == f"lab-{SMALL.key}"
    assert capsys.readouterr().err.count("making the model 'lab'") == 1
    assert directory(SMALL, tmp_path) == place
    assert capsys.readouterr().err == ""
    (place / "model.safetensors").write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
    assert directory(SMALL, tmp_path) == place
    assert "making" in capsys.readouterr().err
    assert (place / "model.safetensors").read_bytes() == weights  # the same teaching, the same bits
    (place / model.MADE).unlink()
    assert not model._whole(place)
    assert [p.name for p in tmp_path.iterdir()] == [place.name]  # nothing half-made is left


def test_the_key_knows_what_decides(monkeypatch):
    more = replace(SMALL, courses=((1e-3, (("basics", 2),)), SMALL.courses[1]))
    keys = {how.key for how in (SMALL, replace(SMALL, seed=1), replace(SMALL, width=64), more)}
    assert len(keys) == 4
    monkeypatch.setitem(SLIPS, "plain", 0.5)
    assert SMALL.key not in keys


def test_the_second_model_is_taught_from_the_first_ones_examples(tmp_path, small, monkeypatch):
    monkeypatch.setattr(model.embedded, "directory", lambda: small)
    place = model.second_directory(replace(SMALL, precision="fp32"), tmp_path)
    assert place.name.startswith("lab-smollm2-")
    assert model.facts(place)["parameters"] == model.facts(small)["parameters"]
    assert (place / "tokenizer.json").read_bytes() == (small / "tokenizer.json").read_bytes()


# ---- abilities -------------------------------------------------------------------------------------------------------


TASK = problem("sort DACBE", "hint")
RIGHT = TASK.reference
WRONG = marked(list("ABDDE"), "ABDDE")  # line 3
LATE = marked(list("ABCDD"), "ABCDD")


@pytest.mark.parametrize(
    ("name", "replies", "found", "heard"),
    [
        ("plain", [RIGHT], {"plain": True, "steps": True}, "sort DACBE"),
        ("plain", [marked(list("ABDCE"), "ABCDE")], {"plain": True, "steps": False}, ""),
        ("plain", [WRONG], {"plain": False}, ""),
        ("hint", [RIGHT], {"hint": True}, "Hint: A\nB\nC"),
        ("retry_plain", [WRONG, RIGHT], {"retry_plain": True}, "That is not right. Try again."),
        ("retry_plain", [RIGHT], {}, ""),
        ("feedback_chat", [WRONG, LATE], {"feedback_chat": False}, "Line 3 is wrong."),
        (
            "feedback_prompt",
            [WRONG, RIGHT],
            {"feedback_prompt": True},
            "About that answer: That is not right. Line 3",
        ),
        (
            "critique",
            [WRONG, "Line 1 is right. Line 3 is wrong."],
            {"critique": True},
            "That is not right.\n\nSay in",
        ),
        ("critique", [LATE, "Line 3 is wrong."], {"critique": False}, ""),
        ("critique", [RIGHT], {}, ""),
        ("reconsider_right", [RIGHT, WRONG], {"reconsider_right": False}, "There might be an error above."),
        ("reconsider_right", [WRONG, RIGHT], {"reconsider_wrong": True}, ""),
        ("improve", [WRONG, RIGHT], {"improve": True}, "Improve this answer."),
        ("improve", [RIGHT, RIGHT], {}, ""),
        (
            "reflect",
            [WRONG, "<prompt>Line 3 is C.</prompt>", RIGHT],
            {"reflect": True},
            "Line 3 is C.\n\nsort",
        ),
        ("wait", [WRONG, "C\nD\nE\n<answer>ABCDE</answer>"], {"wait": True}, "A\nB\nD\nWait\n"),
        ("wait", [RIGHT], {}, ""),
        ("check", [WRONG, RIGHT], {"check": True}, "A\nB\nD\nD\nE\nCheck:\n"),
        ("revise", [WRONG, RIGHT], {"revise": True}, "more helpful"),
        ("revise", [RIGHT, WRONG], {"revise": True}, "less helpful"),
        ("revise", [RIGHT, RIGHT], {"revise": False}, ""),
        ("write", ["sort BAHGT"], {"write": True}, "Write another problem of this kind."),
        ("write", ["sum 123+456"], {"write": False}, ""),
        ("tool", ["<tool>sort DACBE</tool>", RIGHT], {"tool": True}, "Result: ABCDE"),
        ("tool", ["<tool>sort</tool>", RIGHT], {"tool": True}, "Result: error"),
        ("tool", [RIGHT], {"tool": False}, ""),
        ("plan", [f"Plan: 5 lines\n{RIGHT}"], {"plan": True}, "Make a plan first."),
        ("plan", [f"Plan: 4 lines\n{RIGHT}"], {"plan": False}, ""),
    ],
)
def test_each_protocol_by_hand(name, replies, found, heard):
    """What is noted after these replies, and what the policy was asked before the last of them."""
    made = next(made for names, made in abilities.PROBES.items() if name in names)
    sampler = toys.ScriptedSampler(replies=list(replies))
    talk = Conversation(TASK, toys.generator(sampler.policy, sampler), toys.check_runner, 0)
    episode = asyncio.run(made()(TASK, talk))
    assert episode.notes[abilities.FOUND] == found
    assert sampler.replies == []
    assert heard in toys.tokenizer().decode(sampler.asked[-1])


def test_abilities_are_counted_by_protocol(small):
    policy = Policy.load(str(small))
    found = abilities.measure(policy, problems=3, max_tokens=12)
    assert set(found) == set(abilities.PROTOCOLS)
    assert found["plain"] == (0, 3)
    assert found["reconsider_right"] == found["steps"] == (0, 0), "no first attempt was right"
    assert found["retry_plain"][1] == found["feedback_chat"][1] == 3
    assert set(abilities.measure(policy, problems=2, only=("hint", "write"), max_tokens=4)) == {
        "hint",
        "write",
    }
    interval = abilities.interval(3, 4)
    assert interval.low < 0.75 < interval.high
    assert abilities.interval(0, 0) is None
    json.dumps(found)
