"""A plan as a file: what `etude train`, `check` and `compare` are told on the command line, with comments.

    recipe = "grpo"                          # or recipes = ["grpo", "rloo"] for etude compare
    model = "smollm2"
    tasks = "chain_sum:max_terms=2"
    budget = "10m"
    [run]                                    # tables are stages; what stands in them is what --set takes
    tasks_per_step = 8
    [update]
    lr = 1e-5
    [sweep]                                  # every combination is an arm, compared on tuning problems
    update.lr = [1e-6, 3e-6, 1e-5]

TOML, YAML and JSON are read; so is the config.json of any run.
"""

from __future__ import annotations

import itertools
import json
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from etude.assembly import DEFAULTS, resolved_stages
from etude.errors import UserError, nearest
from etude.files import read_text
from etude.recipe import Recipe
from etude.settings import Parameter, Stage
from etude.train.config import Plan, as_text
from etude.train.settings import RunSettings
from etude.train.setup import resolve

ENDINGS = (".toml", ".yaml", ".yml", ".json")
SWEEP = "sweep"
RECIPES = ("recipe", "recipes")


@dataclass(frozen=True)
class PlanFile:
    """What a plan file says: `options` by the names of the command line's (without dashes), `changes` as --set takes them,
    `sweep` {setting: values}."""

    recipes: tuple[str, ...]
    options: Mapping[str, Any]
    changes: Mapping[str, str]
    sweep: Mapping[str, tuple[str, ...]]

    def arms(self) -> list[str]:
        """The arms that `etude compare` runs: the recipes, or every combination of the sweep."""
        if not self.sweep:
            return list(self.recipes)
        arms = []
        for recipe in self.recipes:
            for values in itertools.product(*self.sweep.values()):
                pairs = dict(zip(self.sweep, values, strict=True))
                label = "_".join(f"{path.rpartition('.')[2]}-{value}" for path, value in pairs.items())
                label = label if len(self.recipes) == 1 else f"{Path(recipe).stem}_{label}"
                arms.append(f"{_word(label)}={recipe}:{','.join(f'{p}={v}' for p, v in pairs.items())}")
        return arms

    def words(self, options: Mapping[str, bool], compare: bool = False) -> list[str]:
        """The plan as words of a command line. `options`: those of the command, and whether each is a flag. UserError for
        one that the command does not have."""
        words = self.arms() if compare else [self.one()]
        for name, value in self.options.items():
            if compare and name == "seed":  # a comparison has seeds of its own
                continue
            option = name.replace("_", "-")
            if option not in options:
                raise UserError(f"the plan's '{name}' is no option of this command{nearest(option, options)}")
            if not options[option]:
                many = value if isinstance(value, list) else [value]
                words += [word for one in many for word in (f"--{option}", as_text(one))]
            elif value is True:
                words.append(f"--{option}")
        changes = {**self.changes, **({"run.tuning": "true"} if self.sweep else {})}
        return words + [word for path, value in changes.items() for word in ("--set", f"{path}={value}")]

    def arguments(self, known: Collection[str], settings: Collection[str] = ()) -> dict[str, Any]:
        """The plan as arguments of a Python function that has those in `known`; its options in `settings` are settings of the
        run there. UserError for any other option."""
        given = dict(self.options)
        if "steps" in given:
            if "budget" in given:
                raise UserError("the plan names steps and a budget; give one of them")
            given["budget"] = f"{given.pop('steps')}-steps"
        changes = {f"run.{name}": as_text(given.pop(name)) for name in settings if name in given}
        for name in given:
            if name not in known:
                raise UserError(f"the plan's '{name}' is not for this function{nearest(name, known)}")
        tuning = {"run.tuning": "true"} if self.sweep else {}
        return {**given, "settings": {**self.changes, **changes, **tuning}}

    def one(self) -> str:
        """The recipe, of a plan that names one."""
        if len(self.recipes) != 1:
            raise UserError("the plan names several recipes; compare them with `etude compare`")
        return self.recipes[0]


def is_plan(word: str) -> bool:
    """Whether a word of a command line is a plan file rather than a recipe."""
    return word.lower().endswith(ENDINGS)


def read(path: str | Path) -> PlanFile:
    """The plan in a file. Raises UserError in one sentence for what cannot be read."""
    file = Path(path).expanduser()
    if not file.is_file():
        raise UserError(f"there is no plan file '{path}'")
    data = _parsed(file, read_text(file))
    if not isinstance(data, dict):
        raise UserError(f"the plan '{path}' must hold names and values, such as recipe = \"grpo\"")
    if isinstance(data.get("plan"), dict) and "settings" in data:  # config.json of a run
        plan = Plan.from_dict(data["plan"])
        return PlanFile((plan.to_dict()["recipe"],), _options(plan), plan.changes, {})
    return _read(data, str(path))


def _options(plan: Plan) -> dict[str, Any]:
    budget = plan.budget
    amount = f"{budget.amount:g}s" if budget.unit == "seconds" else f"{budget.amount:g}-{budget.unit}"
    rewards = {"reward": list(plan.rewards)} if plan.rewards else {}
    return {"model": plan.model, "tasks": plan.tasks, "budget": amount, "seed": plan.seed, **rewards}


def _parsed(file: Path, text: str) -> Any:
    ending = file.suffix.lower()
    try:
        if ending == ".toml":
            return tomllib.loads(text)
        if ending == ".json":
            return json.loads(text)
        import yaml

        return yaml.safe_load(text)
    except (ValueError, RecursionError) as error:  # TOMLDecodeError and JSONDecodeError are ValueErrors
        raise UserError(f"the plan '{file}' cannot be read: {error}") from None
    except Exception as error:
        said = " ".join(str(error).split())
        raise UserError(f"the plan '{file}' cannot be read: {said}") from None


def _read(data: Mapping[str, Any], where: str) -> PlanFile:
    options: dict[str, Any] = {}
    changes: dict[str, str] = {}
    for name, value in data.items():
        if name == SWEEP or name in RECIPES:
            continue
        if isinstance(value, Mapping):
            changes |= _flat(name, value, where)
        elif "." in name:
            changes[name] = _value(name, value, where)
        elif name == "tasks" and isinstance(value, list):
            options[name] = ",".join(map(str, value))
        elif isinstance(value, str | int | float | bool) or (name == "reward" and _texts(value)):
            options[name] = value
        else:
            raise UserError(
                f"the plan '{where}': '{name}' is {value!r:.40}; it must be text, a number, true or false"
            )
    given = [data[name] for name in RECIPES if name in data]
    recipes = given[0] if given and isinstance(given[0], list) else given
    if len(given) != 1 or not recipes or not all(isinstance(r, str) for r in recipes):
        raise UserError(
            f"the plan '{where}' must name a recipe, as in recipe = \"grpo\", or several: recipes = [...]"
        )
    return PlanFile(tuple(recipes), options, changes, _sweep(data.get(SWEEP, {}), where))


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(v, str) for v in value)


def _sweep(table: Any, where: str) -> dict[str, tuple[str, ...]]:
    if not isinstance(table, Mapping):
        raise UserError(f"the plan '{where}': [sweep] must hold settings, as in update.lr = [1e-6, 1e-5]")
    found: dict[str, tuple[str, ...]] = {}

    def walk(path: str, value: Any) -> None:
        if isinstance(value, Mapping):
            for name, inner in value.items():
                walk(f"{path}.{name}" if path else name, inner)
        elif isinstance(value, list) and value and "." in path:
            found[path] = tuple(_value(path, v, where) for v in value)
        else:
            raise UserError(
                f"the plan '{where}': sweep of '{path}' must be a list of values, as in [1e-6, 1e-5]"
            )

    walk("", table)
    return found


def _flat(stage: str, table: Mapping[str, Any], where: str) -> dict[str, str]:
    return {f"{stage}.{name}": _value(f"{stage}.{name}", value, where) for name, value in table.items()}


def _value(path: str, value: Any, where: str) -> str:
    if isinstance(value, Mapping):
        raise UserError(
            f"the plan '{where}': '{path}' is a table; settings stand one level deep, as in [update] lr = 1e-5"
        )
    if isinstance(value, bool):
        return str(value).lower()
    return "none" if value is None else as_text(value)


def _word(label: str) -> str:
    return "".join(c if c.isalnum() or c in "_.-" else "-" for c in label)


# ---- writing ---------------------------------------------------------------------------------------------------


def written(plan: Plan) -> str:
    """The plan as TOML with every setting, its meaning beside it. Raises UserError for a plan that cannot be built."""
    recipe, settings, _ = resolve(plan)
    lines = [
        f"# {recipe.name}: {recipe.idea.split('. ')[0].rstrip('.')}." if recipe.idea else f"# {recipe.name}",
        "# Settings that are left out have these values; what the recipe sets itself is marked.",
        "",
        *(
            f"{name} = {_toml(value)}"
            for name, value in {"recipe": plan.to_dict()["recipe"], **_options(plan)}.items()
        ),
    ]
    tables = {"run": Stage(RunSettings, settings.__dict__), **resolved_stages(recipe)}
    for stage, part in tables.items():
        rows = [_setting(parameter, value) for parameter, value in part]
        lines += ["", f"[{stage}]{_factory(recipe, stage)}", *rows] if rows else []
    return "\n".join(lines) + "\n"


def _factory(recipe: Recipe, stage: str) -> str:
    return f"  # {recipe.name}'s own" if stage in recipe.stages else ""


def _setting(parameter: Parameter, value: Any) -> str:
    setting = parameter.setting
    notes = [
        setting.meaning,
        *([setting.unit] if setting.unit else []),
        *([setting.range] if setting.range else []),
    ]
    line = f"{parameter.name} = {_toml(value)}" if value is not None else f"# {parameter.name} = none"
    return f"{line:36}  # {'; '.join(notes)}"


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(str(value), ensure_ascii=False)


def schema() -> dict[str, Any]:
    """A JSON schema of plan files, for editors: the options, and every setting of the run and of the plain stages. Recipes
    bring settings of their own, so further ones are allowed."""

    def table(part: Stage) -> dict[str, Any]:
        rows = {p.name: _typed(p) for p, _ in part}
        return {"type": "object", "properties": rows}

    text = {"type": "string"}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A plan of etude",
        "type": "object",
        "properties": {
            "recipe": {
                **text,
                "description": "a recipe, ./my_method.py or pkg.module:RECIPE, or several joined with +",
            },
            "recipes": {"type": "array", "items": text, "description": "arms of a comparison"},
            "model": {**text, "description": "smollm2, a directory, a hub name, or a run"},
            "tasks": {"type": ["string", "array"], "description": "NAME[:param=value,...] or a file"},
            "budget": {**text, "description": "10m, 500k-tokens, 2e14-flops or 100-steps"},
            "pairs": {**text, "description": "a file of pairs of answers, instead of tasks"},
            "reward": {
                "type": ["string", "array"],
                "description": "SOURCE[,option=value...], or a list of these",
            },
            "steps": {"type": "integer", "minimum": 1},
            "seed": {"type": "integer"},
            "out": text,
            "log": text,
            SWEEP: {
                "type": "object",
                "description": "settings with lists of values: every combination is an arm",
            },
            "run": table(Stage(RunSettings)),
            **{name: table(part) for name, part in DEFAULTS.items()},
        },
    }


def _typed(parameter: Parameter) -> dict[str, Any]:
    kinds = {bool: "boolean", int: "integer", float: "number", str: "string"}
    setting = parameter.setting
    found: dict[str, Any] = {"description": setting.meaning}
    if parameter.kind in kinds:
        found["type"] = kinds[parameter.kind]
    if setting.choices:
        found["enum"] = list(setting.choices)
    if parameter.kind in (int, float):
        found |= {"minimum": setting.low} if setting.low is not None else {}
        found |= {"maximum": setting.high} if setting.high is not None else {}
    if parameter.default is not None and not callable(parameter.default):
        found["default"] = (
            list(parameter.default) if isinstance(parameter.default, tuple) else parameter.default
        )
    return found
