"""The laboratory: tasks whose steps are right, a model that is made once, and kept whole."""

import json
import pickle

import pytest

from etude.errors import UserError
from etude.lab import model
from etude.lab.model import WarmUp, directory
from etude.lab.tasks import ITEMS, KINDS, MAX_TOKENS, Worked, lab_task, solution
from etude.lab.warmup import slipped, warmup_signals
from etude.seeds import generator
from etude.tasks import load, self_test
from etude.types import Request

SMALL = WarmUp(layers=1, width=32, heads=2, steps=2, batch=4)


def test_solutions_by_hand():
    by_prompt = {}
    for kind in KINDS:
        for seed in range(400):
            task = lab_task(kind, 0, seed)
            by_prompt[task.prompt[0].content] = task
    assert {p.split()[0] for p in by_prompt} == set(KINDS)
    for prompt, task in by_prompt.items():
        lines, said = list(task.meta["steps"]), prompt.split()
        if said[0] == "sum":  # every line is the next digit and the total so far, modulo 10
            digits = [int(d) for d in said[1]]
            assert lines == [f"{d}{sum(digits[: i + 1]) % 10}" for i, d in enumerate(digits)]
            assert task.answer == str(sum(digits) % 10)
        if said[0] == "chain":
            assert task.answer == str(eval(said[1]) % 10)
            assert [line[-1] for line in lines][-1] == task.answer
        if said[0] == "sort":
            assert task.answer == "".join(sorted(said[1])) == "".join(lines)
        if said[0] == "reverse":
            assert task.answer == said[1][::-1] == "".join(lines)
        if said[0] == "count":
            assert task.answer == str(said[3].count(said[1]))
            assert "".join(line[0] for line in lines) == said[3]


def test_tasks_are_whole():
    tasks = load("lab")
    for i in range(60):
        task = tasks.draw(Request(), i, 0)
        self_test(task)
        pickle.loads(pickle.dumps(task.check))
        assert task.check(task.reference).correct
        assert len(task.meta["steps"]) == ITEMS[int(task.difficulty)]
        assert all(task.reference.startswith(hint) for hint in task.hints)
        assert task.answer not in "".join(task.hints) or len(task.answer) == 1
        assert len(task.prompt[0].content.partition(" ")[2]) <= 30


def test_feedback_names_the_first_wrong_line():
    lines = ("b", "a")
    check = Worked("ba", feedback="hint", lines=lines)
    assert check(solution(lines, "ba")).correct
    assert check("b\nc\n<answer>bc</answer>").feedback == "That is not right. Line 2 is wrong."
    assert check("b\na\n<answer>ab</answer>").feedback == "That is not right."
    assert Worked("ba", feedback="full", lines=lines)("x").feedback.endswith("The right answer is ba.")
    assert Worked("ba", feedback="none", lines=lines)("x").feedback == ""


def test_levels_mix_evenly_unless_one_is_asked_for():
    tasks = load("lab:kind=reverse")
    levels = [tasks.draw(Request(), i, 0).difficulty for i in range(500)]
    assert all(60 <= levels.count(level) <= 140 for level in range(5))
    assert tasks.draw(Request(kind="reverse", difficulty=3.0), 0, 0).difficulty == 3
    assert {load("lab:level=2").draw(Request(), i, 0).difficulty for i in range(9)} == {2}


def test_the_same_seed_draws_the_same_tasks_and_other_seeds_others():
    a, b, c = (load("lab:kind=sort,level=4") for _ in range(3))
    first = [a.draw(Request(), i, 0).key for i in range(20)]
    assert first == [b.draw(Request(), i, 0).key for i in range(20)]
    assert len({c.draw(Request(), i, 1).key for i in range(20)} & set(first)) <= 1


def test_three_parts_share_nothing():
    """Warm-up, training and evaluation, on a small space of problems, split by what the problems are."""
    tasks = load("lab:kind=sum,level=0")
    held = {t.key for t in tasks.holdout(100, 0)}
    drawn = {tasks.draw(Request(), i, 5).key for i in range(300)}
    taught = {lab_task("sum", 0, i, warm_up=True).key for i in range(300)}
    assert len(taught) > 100
    assert not held & drawn
    assert not (held | drawn) & taught


def test_several_problems_are_won_together_or_lost():
    """A series poses one problem a turn, says nothing before its end, and is lost by one wrong reply."""
    tasks = load("lab:kind=chain,level=1,turns=3,feedback=hint")
    task = tasks.draw(Request(), 0, 0)
    self_test(task)
    make = pickle.loads(pickle.dumps(task.environment))
    parts = make.problems
    assert len({p.key for p in parts}) == 3
    assert task.prompt == parts[0].prompt
    assert {p.difficulty for p in parts} == {1.0}

    def played(wrong):
        environment = make(seed=7)
        assert environment.observe() == ""
        heard = [
            environment.act("<answer>?</answer>" if i in wrong else p.reference) for i, p in enumerate(parts)
        ]
        with pytest.raises(RuntimeError, match="over"):
            environment.act("once more")
        assert [said for said, _ in heard[:2]] == [p.prompt[0].content for p in parts[1:]]
        assert [verdict for _, verdict in heard[:2]] == [None, None]
        return heard[2][1]

    assert (played(()).reward, played(()).correct) == (1.0, True)
    for wrong, named in (((0,), "1"), ((2,), "3"), ((0, 1), "1, 2")):
        verdict = played(wrong)
        assert (verdict.reward, verdict.correct) == (0.0, False)
        assert verdict.feedback == f"That is not right. Wrong: {named} of 3."


def test_series_are_told_apart_by_all_of_their_problems():
    one, two = load("lab:kind=sum,level=0"), load("lab:kind=sum,level=0,turns=2")
    assert one.fingerprint() != two.fingerprint()
    first, second = ({t.draw(Request(), i, 0).key for i in range(50)} for t in (one, two))
    assert not first & second
    again = load("lab:kind=sum,level=0,turns=2")
    assert second == {again.draw(Request(), i, 0).key for i in range(50)}
    held = {t.key for t in two.holdout(50, 0)}
    assert not held & {two.draw(Request(), i, 5).key for i in range(200)}
    for turns in (0, 9):
        with pytest.raises(UserError, match=f"turns={turns} is out of range; it must be from 1 to 8"):
            load(f"lab:turns={turns}")


class Once:
    """Draws that make the second line slip by +1, and no other."""

    def __init__(self):
        self.drawn = 0

    def random(self):
        self.drawn += 1
        return 0.0 if self.drawn == 2 else 1.0

    def choice(self, options):
        return options[-1]


def test_slips():
    task = lab_task("sum", 2, 1)
    rng = generator("slips")
    assert slipped(task, rng, 0.0) == (list(task.meta["steps"]), task.answer)
    lines, result = slipped(task, rng, 1.0)
    assert lines[0] != task.meta["steps"][0]
    assert result == lines[-1][-1]  # goes on from its own mistake
    written, result = slipped(lab_task("sum", 4, 3), Once(), 0.5)
    right = list(lab_task("sum", 4, 3).meta["steps"])
    assert written[:1] == right[:1]
    assert [int(w[-1]) for w in written[1:]] == [
        (int(r[-1]) + 1) % 10 for r in right[1:]
    ]  # carried to the end


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("lab:kind=sortt", "no kind 'sortt'; did you mean 'sort'"),
        ("lab:level=5", "no difficulty 5"),
        ("lab:feedback=loud", "choose one of"),
        ("lab:as=x", "a single kind"),
    ],
)
def test_refusals(spec, says):
    with pytest.raises(UserError, match=says):
        load(spec)


def test_made_once_whole_and_again_when_damaged(tmp_path, monkeypatch, capsys):
    place = directory(SMALL, tmp_path)
    weights = (place / "model.safetensors").read_bytes()
    assert place.name == f"lab-{SMALL.key}"
    assert capsys.readouterr().err.count("making the laboratory's model") == 1
    assert directory(SMALL, tmp_path) == place
    assert capsys.readouterr().err == ""
    (place / "model.safetensors").write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
    assert directory(SMALL, tmp_path) == place
    assert "making" in capsys.readouterr().err
    assert (place / "model.safetensors").read_bytes() == weights  # the same recipe, the same bits
    (place / model.MADE).unlink()
    assert not model._whole(place)
    assert [p.name for p in tmp_path.iterdir()] == [place.name]  # nothing half-made is left


def test_the_key_knows_what_decides():
    from dataclasses import replace

    keys = {SMALL.key, replace(SMALL, seed=1).key, replace(SMALL, steps=3).key, replace(SMALL, width=64).key}
    assert len(keys) == 4


def test_answers_fit_into_the_limit():
    from etude.models.tiny import _characters
    from etude.text.chat_template import Renderer
    from etude.text.tokenizer import Tokenizer

    backend = _characters(_words())
    renderer = Renderer(Tokenizer(backend, {}, None, (backend.token_to_id("<end>"),), {}))
    longest = 0
    for kind in KINDS:
        for seed in range(20):
            task = lab_task(kind, 4, seed)
            longest = max(longest, len(renderer.tokenizer.encode(task.reference)) + 1)
            assert "<unk>" not in backend.encode(task.prompt[0].content + task.reference).tokens
    assert longest == MAX_TOKENS


def _words():
    from etude.lab.warmup import words

    return words()


def test_warmup_trains_on_answers_alone(tmp_path):
    from etude.models.policy import Policy

    policy = Policy.load(str(directory(SMALL, tmp_path)))
    for signal in warmup_signals(policy.renderer, 20, 0, 0):
        taught = signal.weights["imitation"] > 0
        last = signal.episode.spans[-1]
        assert taught.sum() == len(last)
        assert taught[-len(last) :].all()
        assert json.loads(json.dumps(policy.renderer.decode(last.tokens))).endswith("</answer>")
