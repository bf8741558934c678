"""Task sources, the mixture and bad input. The last test class runs every generator."""

import json
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from etude.errors import UserError
from etude.tasks import TaskSet, catalogue, check_disjoint, load, self_test
from etude.tasks.check import Exact, Function
from etude.tasks.gym import GymSource, names, params_of
from etude.tasks.gym_facts import EXCLUDED, UNSTABLE
from etude.tasks.spec import parse
from etude.types import Message, Request, Task

EASY = "chain_sum:max_terms=2,max_digits=2"


def mine(i, kind="mine", difficulty=0.0):
    return Task((Message("user", f"Say {i}"),), Exact(f"word{i}"), kind, difficulty, f"word{i}")


class TestSpec:
    def test_commas_separate_names_and_parameters(self):
        parts = parse("chain_sum:max_terms=2,max_digits=1,gcd,mine.jsonl:check=exact")
        assert [(p.name, dict(p.params)) for p in parts] == [
            ("chain_sum", {"max_terms": "2", "max_digits": "1"}),
            ("gcd", {}),
            ("mine.jsonl", {"check": "exact"}),
        ]

    def test_typed_values(self):
        source = GymSource("complex_arithmetic", {"operations_weights": "[0.5;0.5;0;0]", "min_real": "-3"})
        assert source.params == {"operations_weights": [0.5, 0.5, 0.0, 0.0], "min_real": -3}
        with pytest.raises(UserError, match="not a whole number"):
            GymSource("chain_sum", {"max_terms": 2.5})
        assert GymSource("chain_sum", {"allow_negation": "true"}).params == {"allow_negation": True}

    @pytest.mark.parametrize(
        ("spec", "sentence"),
        [
            ("", "the task spec is empty"),
            ("chain_sum,,gcd", "there is nothing between two commas"),
            ("max_terms=2", "must follow a task name, as in NAME:max_terms=2"),
            (":max_terms=2", "a task name is missing"),
            ("chain_sum:max_terms=", "must read param=value"),
            ("chain_sum:max_terms=2,max_terms=3", "parameter 'max_terms' is given twice"),
            ("chain_sun", "there is no file, folder or task 'chain_sun'; did you mean 'chain_sum'?"),
            ("frozen_lak", "there is no file, folder or task 'frozen_lak'; did you mean 'frozen_lake'?"),
            ("chain_sum:max_term=2", "no parameter 'max_term'; did you mean 'max_terms'?"),
            ("chain_sum:seed=2", "no parameter 'seed'"),
            ("chain_sum:max_terms=two", "max_terms='two' is not a whole number"),
            ("chain_sum:max_terms=2.5", "max_terms='2.5' is not a whole number"),
            ("chain_sum:allow_negation=maybe", "allow_negation='maybe' is not true or false"),
            ("chain_sum:min_terms=0", "refuses min_terms=0: min_terms must be positive"),
            ("chain_sum:min_terms=5,max_terms=2", "max_terms must be >= min_terms"),
            ("chain_sum:style=long", "choose one of plain, short, tag"),
            ("chain_sum:feedback=loud", "choose one of none, unary, hint, full"),
            ("chain_sum:extract=lastnumber", "is no rule; did you mean 'last_number'?"),
            ("chain_sum:level=99", "'chain_sum' has no difficulty 99; choose one of 0, 1,"),
            ("chain_sum:weight=0", "weight=0 must be more than 0"),
            ("chain_sum:weight=nan", "weight='nan' is not a number"),
            ("chain_sum,chain_sum", "two task sources are called 'chain_sum'; rename one with as=NAME"),
            ("rubiks_cube:cube_size=4", "needs cube_size=3, not 4"),
            ("boxnet", "task 'boxnet' cannot be used: it gives no answer"),
            ("frozen_lake:size=99", "size=99 is out of range; it must be from 2 to 16"),
            ("frozen_lake:holes=0.9", "holes=0.9 is out of range"),
            ("frozen_lake:turns=2", "turns=2 is too few for size 3"),
            ("frozen_lake:hole=0.1", "no parameter 'hole'; did you mean 'holes'?"),
            ("number_guess:highest=1", "highest=1 is out of range"),
            ("number_guess:turns=-1", "turns=-1 is out of range"),
            ("nowhere/x.jsonl", "task file 'nowhere/x.jsonl' cannot be read: No such file"),
        ],
    )
    def test_bad_specs_get_one_sentence(self, spec, sentence):
        with pytest.raises(UserError) as error:
            load(spec)
        assert sentence in str(error.value)
        assert "\n" not in str(error.value)

    def test_a_generator_that_needs_fixed_hashing_says_so(self, monkeypatch):
        monkeypatch.delenv("PYTHONHASHSEED", raising=False)
        with pytest.raises(UserError, match="PYTHONHASHSEED=0"):
            load("word_ladder")


class TestGym:
    def test_one_bound_moves_the_other(self):
        low = GymSource("chain_sum", {"max_terms": "1"})._config(None)
        assert (low["min_terms"], low["max_terms"]) == (1, 1)
        high = GymSource("chain_sum", {"min_digits": "7"})._config(None)
        assert (high["min_digits"], high["max_digits"]) == (7, 7)
        # at level 3 the curriculum wants 2 to 5 terms: what the user gave holds, and the other bound gives way
        assert GymSource("chain_sum", {"min_terms": "9"})._config(3.0)["max_terms"] == 9

    def test_levels_come_from_the_curriculum_and_rise(self):
        source = GymSource("chain_sum")
        levels = source.levels("chain_sum")
        assert levels[:3] == (0.0, 1.0, 2.0)
        easy, hard = (source.draw("chain_sum", lv, 30, 1) for lv in (0.0, levels[-1]))
        length = lambda tasks: sum(len(t.prompt[0].content) for t in tasks)  # noqa: E731
        assert length(hard) > 1.5 * length(easy)
        assert {t.difficulty for t in hard} == {levels[-1]}

    def test_levels_that_the_generator_refuses_are_not_offered(self):
        assert GymSource("caesar_cipher").levels("caesar_cipher") == (0.0, 1.0)
        assert GymSource("sokoban").levels("sokoban")[0] == 1.0
        assert GymSource("acre").levels("acre") == (0.0,)

    def test_level_parameter_fixes_the_difficulty(self):
        drawn = load("chain_sum:level=[1;3]")
        assert {drawn.draw(Request(), i, 0).difficulty for i in range(20)} == {1.0, 3.0}

    def test_styles(self):
        prompts = {
            s: GymSource("gcd", {"style": s}).draw("gcd", None, 1, 0)[0] for s in ("plain", "short", "tag")
        }
        assert "just the result" in prompts["short"].prompt[0].content
        assert "just the result" not in prompts["plain"].prompt[0].content
        gold = prompts["tag"].answer
        assert prompts["tag"].check(f"so <answer>{gold}</answer>").correct
        assert not prompts["tag"].check(gold).correct
        assert prompts["short"].check(f"The GCD is {gold}.").correct

    def test_part_of_a_number_is_no_part_of_a_point(self):
        task = next(t for t in GymSource("chain_sum").draw("chain_sum", None, 9, 0) if len(t.answer) > 2)
        assert task.check("9" + task.answer).reward == 0.0
        partial = GymSource("chain_sum", {"partial": True}).draw("chain_sum", None, 9, 0)
        task = next(t for t in partial if len(t.answer) > 2)
        assert 0 < task.check("9" + task.answer).reward < 1
        assert not task.check("9" + task.answer).correct

    def test_answers_are_never_run_as_programs(self, tmp_path):
        made = tmp_path / "made"
        attack = f"open({str(made)!r}, 'w').write('x')"
        for name in ("binary_matrix", "spiral_matrix", "string_insertion", "n_queens", "countdown",
                     "puzzle24", "simple_integration"):  # fmt: skip
            task = GymSource(name).draw(name, None, 1, 0)[0]
            assert not task.check(attack).correct
        assert not made.exists()

    def test_scorers_that_take_anything_are_replaced(self):
        for name, junk in (("game_of_life_halting", "maybe"), ("complex_arithmetic", "nan")):
            for task in GymSource(name).draw(name, None, 4, 0):
                assert not task.check(junk).correct

    def test_an_answer_that_the_scorer_cannot_read_fails(self):
        task = GymSource("prime_factorization").draw("prime_factorization", None, 1, 0)[0]
        assert task.check("no idea").reward == 0.0

    def test_a_scorer_that_cannot_score_gold_raises(self, monkeypatch):
        from etude.tasks import gym_check

        class Broken:
            def score_answer(self, answer, entry):
                raise ValueError("broken")

        task = GymSource("gcd").draw("gcd", None, 1, 0)[0]
        monkeypatch.setattr(gym_check, "scorer", lambda *a: Broken())
        with pytest.raises(ValueError, match="broken"):
            task.check("12")

    def test_global_random_states_are_left_alone(self):
        import random

        import numpy as np

        before = random.getstate(), np.random.get_state()[1].tolist()
        GymSource("pool_matrix").draw("pool_matrix", None, 2, 0)
        assert (random.getstate(), np.random.get_state()[1].tolist()) == before


class TestSeeds:
    def test_neighbouring_seeds_share_nothing(self):
        tasks = load("basic_arithmetic:min_digits=4")
        keys = [{tasks.draw(Request(), i, seed).key for i in range(40)} for seed in (42, 43)]
        assert len(keys[0]) == len(keys[1]) == 40
        assert not keys[0] & keys[1]

    def test_the_same_place_gives_the_same_task(self):
        first, again = load(EASY + ",gcd"), load(EASY + ",gcd")
        assert [first.draw(Request(), i, 3) for i in range(9)] == [
            again.draw(Request(), i, 3) for i in range(9)
        ]
        assert first.draw(Request(), 5, 3) == first.draw(Request(), 5, 3)

    def test_generators_with_sets_are_the_same_in_every_process(self):
        code = """
            from etude.tasks.gym import _entry
            for name in ("isomorphic_strings", "ransom_note"):
                print([_entry(name, (), seed) for seed in range(3)])
        """
        root = str(Path(__file__).parents[1] / "src")
        said = {
            subprocess.run(
                [sys.executable, "-c", textwrap.dedent(code)],
                env={"PYTHONHASHSEED": seed, "PYTHONPATH": root},
                capture_output=True,
                text=True,
                check=True,
            ).stdout
            for seed in ("1", "2")
        }
        assert len(said) == 1

    def test_importing_is_light(self):
        code = (
            "import sys, etude.tasks\n"
            "print([m for m in ('torch', 'reasoning_gym', 'gymnasium', 'math_verify') if m in sys.modules])"
        )
        root = str(Path(__file__).parents[1] / "src")
        done = subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONPATH": root}, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == "[]"


def len_is_even(answer):
    return len(answer) % 2 == 0


class TestTaskSet:
    def test_holdout_is_never_drawn(self):
        tasks = load("chain_sum:max_terms=2,max_digits=1,min_terms=2")  # about two hundred different tasks
        held = tasks.holdout(60, seed=0)
        keys = {t.key for t in held}
        assert len(keys) == 60
        assert not keys & {tasks.draw(Request(), i, 0).key for i in range(300)}
        assert keys == {t.key for t in load("chain_sum:max_terms=2,max_digits=1,min_terms=2").holdout(60, 0)}

    def test_an_exhausted_space_is_refused(self):
        tiny = "number_guess:highest=3"
        with pytest.raises(UserError, match="after 3 different ones"):
            load(tiny).holdout(4, 0)
        tasks = load(tiny)
        tasks.holdout(3, 0)
        with pytest.raises(UserError, match="no task left to train on"):
            tasks.draw(Request(), 0, 0)

    def test_requests(self):
        tasks = load("chain_sum:max_digits=3,gcd")
        assert tasks.kinds == ("chain_sum", "gcd")
        assert {tasks.draw(Request(kind="gcd"), i, 0).kind for i in range(5)} == {"gcd"}
        assert tasks.draw(Request("chain_sum", 2.0), 0, 0).difficulty == 2.0
        own = mine(1)
        assert tasks.draw(Request(task=own), 0, 0) is own
        with pytest.raises(UserError, match="no kind 'gdc'; did you mean 'gcd'"):
            tasks.draw(Request(kind="gdc"), 0, 0)
        with pytest.raises(UserError, match=r"'chain_sum' has no difficulty 0\.5"):
            tasks.draw(Request("chain_sum", 0.5), 0, 0)
        held = tasks.holdout(1, 0)[0]
        with pytest.raises(UserError, match="held out for evaluation"):
            tasks.draw(Request(task=held), 0, 0)

    def test_weights_and_names(self):
        tasks = load("gcd:weight=3,gcd:as=other,max_value=20")
        kinds = [tasks.draw(Request(), i, 0).kind for i in range(200)]
        assert 120 < kinds.count("gcd") < 180
        assert set(kinds) == {"gcd", "other"}

    def test_fingerprint_names_the_tasks(self, tmp_path):
        prints = {
            load(s).fingerprint() for s in ("gcd", "gcd:max_value=99", "gcd:style=tag", "gcd,lcm", "lcm")
        }
        assert len(prints) == 5
        assert load("gcd").fingerprint() == load("gcd").fingerprint()
        file = tmp_path / "f.jsonl"
        file.write_text('{"prompt": "a", "answer": "1"}\n{"prompt": "b", "answer": "2"}\n')
        before = load(str(file)).fingerprint()
        file.write_text('{"prompt": "a", "answer": "1"}\n{"prompt": "b", "answer": "3"}\n')
        assert load(str(file)).fingerprint() != before

    def test_own_tasks_and_a_plain_function(self):
        own = [Task((Message("user", str(i)),), Function(len_is_even)) for i in range(10)]
        tasks = TaskSet.of(own)
        assert len(tasks.holdout(2, 0)) == 2
        assert tasks.draw(Request(), 0, 0).check("ab").correct

    def test_finite_split_and_epochs(self):
        tasks = TaskSet.of([mine(i) for i in range(50)], eval_share=0.2)
        held = {t.key for t in tasks.holdout(10, 0)}
        order = [tasks.draw(Request(), i, 0).key for i in range(80)]
        assert len(set(order[:40])) == len(set(order[40:])) == 40  # each epoch: every task once
        assert order[:40] != order[40:]
        assert not held & set(order)
        assert order[:40] != [tasks.draw(Request(), i, 1).key for i in range(40)]
        turned = TaskSet.of([mine(i) for i in reversed(range(50))], eval_share=0.2)
        assert [turned.draw(Request(), i, 0).key for i in range(80)] == order
        with pytest.raises(UserError, match="11 evaluation tasks were asked for but after 10"):
            tasks.holdout(11, 0)

    def test_overlap_is_refused(self):
        with pytest.raises(UserError, match=r"1 task\(s\) stand in both .* asking 'Say 3'"):
            check_disjoint([mine(i) for i in range(4)], [mine(3), mine(9)])
        check_disjoint([mine(1)], [mine(2)])
        with pytest.raises(UserError, match="stand in both"):
            TaskSet.of([mine(1), mine(2)], held=[mine(2)])
        with pytest.raises(UserError, match="holds no tasks"):
            TaskSet.of([])

    def test_kinds_and_levels_of_a_list(self):
        tasks = TaskSet.of([mine(i, "ab"[i % 2], float(i % 3)) for i in range(60)])
        assert tasks.kinds == ("a", "b")
        assert tasks.levels("a") == (0.0, 1.0, 2.0)
        got = [tasks.draw(Request("b", 2.0), i, 0) for i in range(5)]
        assert {(t.kind, t.difficulty) for t in got} == {("b", 2.0)}


class TestEverything:
    def test_catalogue(self):
        found = {i.name: i for i in catalogue()}
        own = {"constraints", "program", "lab", "kuhn_poker", "tic_tac_toe", "textarena", "triples"}
        assert len([i for i in found.values() if i.form == "generator" and i.name not in own]) == 106
        json.dumps([i.to_dict() for i in found.values()])
        lake = found["frozen_lake"].to_dict()
        assert "environment" in lake["carries"]
        assert {"name": "size", "type": "int", "default": 3, "doc": "cells a side, 2 to 16"} in lake["params"]
        assert found["boxnet"].fault
        assert catalogue("gcd")[0].levels["gcd"][:2] == (0.0, 1.0)
        with pytest.raises(UserError, match="did you mean 'gcd'"):
            catalogue("gdc")

    def test_the_tables_name_real_generators(self):
        from etude.tasks import gym_facts
        from etude.tasks.gym import _registry

        for table in (
            "EXCLUDED",
            "UNSTABLE",
            "REBUILT",
            "GOLD_IN_METADATA",
            "BY_TEXT",
            "HARMLESS",
            "EVALUATED",
            "ONLY",
            "SLOW_LEVELS",
        ):
            assert set(getattr(gym_facts, table)) <= set(_registry()[0])

    @pytest.mark.parametrize("name", sorted(set(names()) - set(UNSTABLE)))
    def test_gold_passes_and_junk_fails(self, name):
        task = GymSource(name).draw(name, None, 1, 5)[0]
        self_test(task)
        self_test(pickle.loads(pickle.dumps(task)))
        assert params_of(name)

    def test_what_is_excluded_cannot_be_tested(self):
        import reasoning_gym

        for name in set(EXCLUDED) - {"composite"}:
            assert reasoning_gym.create_dataset(name, size=1, seed=0)[0]["answer"] is None

    @pytest.mark.long
    @pytest.mark.parametrize("name", sorted(set(names()) - set(UNSTABLE)))
    def test_three_levels(self, name):
        source = GymSource(name)
        for level in source.levels(name)[:3]:
            for task in source.draw(name, level, 2, 3):
                self_test(task)
