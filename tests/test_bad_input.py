"""Numbers, text and files that nobody means: one sentence, exit code 2, nothing left behind, never a traceback.

Looked for, for every option of every command and every setting of every recipe: nan, inf, -inf, -1, 0, 1e400, integers of
30 and of 5,000 digits, nothing, text, half a character (what a terminal that is not UTF-8 hands over), 5,000 characters,
"..", "/dev/zero", a directory. Found: inf for numbers without an upper bound (oversample, kl_weight, clip_high, the
temperature of `sample`), 1 for AdamW's betas, integers beyond what arrays can have, 1e308 where float32 follows, an empty
--budget taken for none, paths and arms longer than a file's name, half a character in a prompt and in a recipe's words.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
from pathlib import Path

import pytest
import typer

from etude import cli
from etude.assembly import DEFAULTS, resolved_stages
from etude.errors import UserError
from etude.files import parsed, read_json
from etude.methods import catalogue
from etude.models.load import load
from etude.models.tiny import tiny, tiny_directory
from etude.report import tracking
from etude.settings import parameters
from etude.train.config import Plan
from etude.train.settings import RunSettings

HALF = "\udcff"  # how Python holds a byte that is not UTF-8
NUMBERS = ["nan", "inf", "-inf", "-1", "0", "1e400", "9" * 30, "9" * 5000, "", "text", HALF]
WORDS = ["", HALF, "x" * 5000, "..", "/dev/zero", "=:,+["]
# What makes each command end in a refusal before it begins.
BASE = {
    "train": ["grpo", "--tasks", "/nowhere.jsonl"],
    "resume": ["/nowhere"],
    "check": ["--tasks", "/nowhere.jsonl"],
    "demo": ["--out", "/dev/null"],
    "eval": ["/nowhere/model", "--tasks", "/nowhere.jsonl"],
    "sample": ["/nowhere/model", "hello"],
    "compare": ["grpo", "--tasks", "/nowhere.jsonl", "--budget", "1-steps", "--out", "/dev/null"],
    "recipes": ["nowhere"],
    "tasks": ["nowhere"],
    "report": ["/nowhere"],
    "view": ["/nowhere", "--no-open"],
    "show": ["/nowhere"],
    "try": ["./nowhere.py", "--quick"],
    "new method": ["a-b"],
    "play": ["/nowhere"],
    "pipeline": ["/nowhere.toml"],
    "plan": ["nowhere", "-m", "smollm2", "-t", "chain_sum"],
    "init": ["/dev/null/plan.toml"],
    "ask": ["/nowhere", "hello"],
    "serve": ["/nowhere"],
    "export": ["/nowhere", "--to", "/dev/null/out"],
    "runs": ["/nowhere"],
    "diff": ["/nowhere", "/nowhere"],
    "rm": ["/nowhere"],
    "claims": ["nowhere"],
    "study": ["nowhere"],
    "data recipes": ["nowhere"],
    "data make": ["dart", "--tasks", "/nowhere.jsonl", "--out", "out"],
    "data choose": ["clusters", "/nowhere.jsonl", "--out", "out"],
    "data mix": ["dmt", "/nowhere.jsonl", "--out", "out"],
    "data check": ["/nowhere.jsonl"],
    "engine serve": ["-m", "/nowhere"],
}
BARE = {"doctor", "lab", "engine install", "studies"}  # have no values to be given


def commands(group=None, before: str = ""):
    group = group or typer.main.get_command(cli.app)
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{before}{name} ")
        else:
            yield before + name, command


def cases(every: bool):
    """Each value for each option; without `every` each option meets a few of them, and all values are met by some option."""
    turn = 0
    for name, command in commands():
        arguments = [p for p in command.params if p.param_type_name == "argument"]
        for parameter in command.params:
            kind = str(parameter.bare_type())
            if (
                name in BARE
                or getattr(parameter, "is_flag", False)
                or (name, parameter.name) == ("demo", "out")
            ):
                continue
            values = NUMBERS if "int" in kind or "float" in kind else WORDS
            for number, value in enumerate(values):
                if not every and (number + turn) % 3:
                    continue
                words = list(BASE[name])
                if parameter in arguments:
                    words[arguments.index(parameter) : arguments.index(parameter) + 1] = [value]
                else:
                    words += [parameter.opts[0], value]
                yield name, parameter.name, value, [*name.split(), *words]
            turn += 1


def test_every_command_has_its_row() -> None:
    assert {name for name, _ in commands()} == BASE.keys() | BARE


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.long)])
def test_no_option_of_any_command_ends_in_a_traceback(
    every: bool, tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("etude.tasks.catalogue", lambda: [])  # takes seconds
    monkeypatch.setattr("sys.stdin", io.StringIO())
    tried = 0
    for name, parameter, value, words in cases(every):
        if name in ("view", "runs") and parameter == "directory" and value in ("", ".."):
            continue  # are shown
        try:
            code = cli.run(words)
        except BaseException as error:
            pytest.fail(f"etude {name}: {parameter}={value!a:.40}: {error!r}")
        said = capsys.readouterr().err.strip()
        if name == "init":  # its first question stands before
            said = said.rpartition("\n")[2]
        harmless = name == "recipes" and not value
        assert code == (0 if harmless else 2), f"etude {name}: {parameter}={value!a:.40}: {said}"
        assert harmless or said.startswith("etude: "), said
        assert said.count("\n") == 0, said
        assert len(said) < 5000
        assert not os.listdir(), f"etude {name}: {parameter}={value!a:.40} leaves {os.listdir()}"
        tried += 1
    assert tried > (400 if every else 150)


# ---- settings ------------------------------------------------------------------------------------------


def every_setting():
    seen = set()
    stages = [("run", RunSettings), *((n, s.factory) for n, s in DEFAULTS.items())]
    stages += [(n, s.factory) for r in catalogue().values() for n, s in resolved_stages(r).items()]
    for stage, factory in stages:
        for name, parameter in parameters(factory).items():
            if (factory, name) not in seen:
                seen.add((factory, name))
                yield stage, parameter


def test_every_setting_is_a_finite_number_within_its_range_or_refused() -> None:
    counted = 0
    for stage, parameter in every_setting():
        for text in NUMBERS:
            counted += 1
            value: object = UserError
            with contextlib.suppress(UserError):
                value = parameter.read(text, stage)
            if isinstance(value, float) and parameter.setting.high != math.inf:
                assert math.isfinite(value)
                assert abs(value) <= 1e30
            if isinstance(value, int):
                assert abs(value) < 2**31
            if isinstance(value, str):
                value.encode()
    assert counted > 4000


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("run.oversample", "inf", "must lie in [1, 1000]"),
        ("run.group_size", "inf", "must be of type int"),
        ("run.max_tokens", "1e12", "must lie in [1, inf) and be at most 2.14748e+09"),
        ("update.beta1", "1", "must lie in [0, 0.99999]"),
        ("update.max_norm", "inf", "must lie in [0, inf) and be at most 1e+30"),
        ("objective.kl_weight", "1e31", "must lie in [0, inf) and be at most 1e+30"),
    ],
)
def test_the_range_is_named(name: str, value: str, said: str, capsys) -> None:
    words = ["train", "grpo", "-t", "/nowhere.jsonl", "--set", f"{name}={value}"]
    assert cli.run(words) == 2
    assert said in capsys.readouterr().err


# ---- files -----------------------------------------------------------------------------------------------

DAMAGED = ["null", "[]", "5", '"x"', '{"a', "", "[" * 100_000, "9" * 5000, '{"a": 1, "a": 2}', "\ud83d"]


@pytest.mark.parametrize("content", DAMAGED, ids=range(len(DAMAGED)))
def test_damaged_json_is_a_sentence_wherever_it_lies(content: str, tmp_path: Path, capsys) -> None:
    data = content.encode("utf-8", "surrogatepass")
    (tmp_path / "half.json").write_bytes(data)
    with pytest.raises(UserError, match=r"half\.json"):
        read_json(tmp_path / "half.json", "a", "b")
    for name in (
        "config.json",
        "tokenizer_config.json",
        "generation_config.json",
        "model.safetensors.index.json",
    ):
        model = tiny_directory(tmp_path / name)
        (model / name).write_bytes(data)
        with pytest.raises(UserError):
            load(str(model), "fp32", 0, {}, "cpu", "auto", False)
    run = tmp_path / "run"
    run.mkdir()
    for name in ("config.json", "card.json"):
        (run / name).write_bytes(data)
    for words in (["resume", str(run)], ["report", str(run)], ["eval", str(run), "-t", "ab"]):
        assert cli.run(words) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_what_a_plan_lacks_is_a_sentence() -> None:
    for data in (
        {},
        {"recipe": "grpo"},
        {"recipe": 1, "model": 2, "tasks": 3, "budget": 4, "seed": 5, "changes": 6},
    ):
        with pytest.raises(UserError):
            Plan.from_dict(data)


def test_keys_that_stand_twice_are_refused() -> None:
    with pytest.raises(UserError, match="here: the key 'b' stands twice"):
        parsed('{"a": {"b": 1, "b": 2}}', "here")


def test_half_a_character_in_a_prompt_is_named(capsys, tmp_path: Path) -> None:
    model = tiny_directory(tmp_path / "model")
    assert cli.run(["sample", str(model), f"a{HALF}b"]) == 2
    assert "half a character" in capsys.readouterr().err
    with pytest.raises(UserError, match="half a character"):
        tiny().tokenizer.encode("\ud83d")


def test_the_machine_is_named_where_it_refuses(monkeypatch, capsys) -> None:
    def refusing(error: Exception):
        def sources():
            raise error

        return sources

    for error, said in (
        (
            OSError(30, "Read-only file system", "/home/me/.cache"),
            "etude: '/home/me/.cache': Read-only file system\n",
        ),
        (OSError(28, "No space left on device"), "etude: No space left on device\n"),
        (MemoryError(), "etude: there is not enough memory; give smaller numbers, or a smaller model\n"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "etude: there is not enough memory"),
    ):
        monkeypatch.setattr("etude.tasks.catalogue", refusing(error))
        assert cli.run(["tasks"]) == 2
        assert capsys.readouterr().err.startswith(said)
    for error in (RuntimeError("a mistake of ours"), OSError(2, "No such file")):
        monkeypatch.setattr("etude.tasks.catalogue", refusing(error))
        with pytest.raises(type(error)):
            cli.run(["tasks"])


# ---- --log -----------------------------------------------------------------------------------------------


class FakeWandB:
    """As far as etude asks it before a run."""

    class api:
        api_key = None

    def init(self, **_):
        raise RuntimeError("No API key configured. Use `wandb login` to log in.")


def test_wandb_without_a_key_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "wandb", FakeWandB())
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    out = tmp_path / "out"
    words = ["train", "grpo", "-t", "/nowhere.jsonl", "--out", str(out), "--log", "wandb"]
    assert cli.run(words) == 2
    assert "wandb has no key; `wandb login`, or WANDB_MODE=offline" in capsys.readouterr().err
    assert not out.exists()
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert tracking.known("wandb") == ["wandb"]
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setattr(FakeWandB.api, "api_key", "secret")
    assert tracking.known("tensorboard, wandb") == ["tensorboard", "wandb"]


def test_budget_that_is_empty_is_none(capsys) -> None:
    assert cli.run(["train", "grpo", "-t", "ab", "--budget", ""]) == 2
    assert "a budget looks like" in capsys.readouterr().err
