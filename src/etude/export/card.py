"""The model card: what a model was trained on and how, what that brought and how it was measured, read from its run."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from etude.assembly import resolved_stages
from etude.errors import UserError
from etude.methods import find
from etude.recipe import Recipe
from etude.report.json_files import plain
from etude.report.run import RunDirectory, is_run
from etude.report.terminal import amount, how, share
from etude.train.put import SYSTEM, recorded
from etude.train.settings import run_settings

HUB = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class Base:
    """The model that training began from."""

    said: str  # its name, as a sentence can have it
    hub: str | None = None  # owner/name
    licence: str | None = None  # as its own card has it


KNOWN = {
    "smollm2": Base(
        "SmolLM2-135M-Instruct, from a 4-bit file", "HuggingFaceTB/SmolLM2-135M-Instruct", "apache-2.0"
    ),
    "lab": Base("etude's laboratory model, made from nothing", None, "apache-2.0"),
}


def base_of(model: str) -> Base:
    """What is known of a model that a plan names. A model that is itself a run's leads to the run's own base."""
    path = Path(model).expanduser()
    for place in (path, path.parent):
        if is_run(place) and (place == path or path.name == "model"):
            first = base_of(RunDirectory.open(place).config["plan"]["model"])
            return Base(f"{first.said}, trained before in the run {place.name}", first.hub, first.licence)
    if model in KNOWN:
        return KNOWN[model]
    if path.is_dir():
        stated = _metadata(path / "README.md")
        return Base(path.resolve().name, _text(stated.get("base_model")), _text(stated.get("license")))
    return Base(model, model, _text(_metadata(_from_hub(model)).get("license")))


def _from_hub(name: str) -> Path | None:
    """The card of a model of the hub: the one that is cached, or else fetched; None where neither can be had."""
    with contextlib.suppress(Exception):
        from huggingface_hub import hf_hub_download

        return Path(hf_hub_download(name, "README.md", etag_timeout=5))
    return None


def _metadata(card: Path | None) -> Mapping[str, Any]:
    if card is None or not card.is_file():
        return {}
    with contextlib.suppress(Exception):  # a card is written by people
        from huggingface_hub import metadata_load

        return metadata_load(card) or {}
    return {}


def _text(value: Any) -> str | None:
    first = value[0] if isinstance(value, list) and value else value
    return first if isinstance(first, str) else None


def model_card(run: RunDirectory, name: str, step: int, adapter: bool = False) -> str:
    """README.md of a model that was exported under `name` from step `step` of `run`."""
    from huggingface_hub import ModelCardData

    config, plan = run.config, run.config["plan"]
    base = base_of(plan["model"])
    head = ModelCardData(
        license=base.licence,
        base_model=base.hub,
        library_name="peft" if adapter else "transformers",
        pipeline_tag="text-generation",
        tags=["etude", "reinforcement-learning", *(["lora"] if adapter else [])],
    )
    parts = [
        f"---\n{head.to_yaml()}\n---",
        f"# {name}",
        _summary(run, base, step),
        "## Accuracy",
        *_accuracy(run, step),
        "## Training",
        _training(config, plan, run.metrics(), base),
        *_findings(run),
        "## Made with",
        _environment(run.card),
        "## Licence",
        _licence(base),
        "## Use",
        _use(name, base, adapter),
        *_asked(config),
    ]
    return "\n\n".join(parts) + "\n"


def _summary(run: RunDirectory, base: Base, step: int) -> str:
    plan = run.config["plan"]
    paper = _recipe(run.config)
    source = (
        f" ([{paper.paper.title}]({paper.paper.url}))" if paper and paper.paper and paper.paper.url else ""
    )
    whole = _finished(run, step)
    left = "" if whole else " The run had not come to its end: these are the weights of its last checkpoint."
    return (
        f"{base.said}, trained for {step} steps on its own checked attempts at `{plan['tasks']}` with "
        f"`{run.config['recipe']}`{source}.{left}"
    )


def _finished(run: RunDirectory, step: int) -> bool:
    return (
        any(e.get("rule") == "last" and e["step"] == step for e in run.evals())
        or (run.path / "model").exists()
    )


def _recipe(config: Mapping[str, Any]) -> Recipe | None:
    """The recipe, where it can still be found: a method of one's own may be gone."""
    with contextlib.suppress(UserError, TypeError):
        return find(config["plan"]["recipe"])
    return None


def _accuracy(run: RunDirectory, step: int) -> list[str]:
    evals = run.evals()
    before = next((e for e in evals if e.get("rule") == "before"), None)
    after = next((e for e in reversed(evals) if e.get("rule") == "last" and e["step"] == step), None)
    if before is None and after is None:
        return ["It was not examined on held-out problems."]
    rows = [("accuracy", _cell(before), _cell(after))]
    rows += [
        (f"pass@{k}", _cell(before, k), _cell(after, k)) for k in (after or before or {}).get("pass", {})
    ]
    table = ["| held-out problems | before | after |", "|---|---|---|"]
    table += [f"| {name} | {first} | {last} |" for name, first, last in rows]
    said = (
        "Means with 95 % intervals over problems that were not trained on. It is one run with one seed: it shows what these "
        "weights do on such problems, not that this method beats another, nor what they do elsewhere."
    )
    return ["\n".join(table), f"{how(after or before or {})}.", said]


def _cell(result: Mapping[str, Any] | None, k: str = "") -> str:
    found = result and (result["pass"].get(k) if k else result)
    return share(found) if found else "-"


def _training(
    config: Mapping[str, Any], plan: Mapping[str, Any], metrics: Sequence[Mapping[str, Any]], base: Base
) -> str:
    settings, last = config["settings"], metrics[-1] if metrics else {}
    budget = f"{amount(float(plan['budget']['amount']), '')} {plan['budget']['unit']}"
    shown = {
        "recipe": config["recipe"],
        "base model": base.hub or base.said,
        "tasks": plan["tasks"],
        "budget": budget,
        "seed": plan["seed"],
        "weights trained": f"LoRA of rank {settings['lora']}" if settings.get("lora") else "all",
        "attempts per step": f"{settings['tasks_per_step']} tasks x {settings['group_size']}",
        "longest reply": f"{settings['max_tokens']} tokens",
        "learning rate": (config.get("stages") or {}).get("update", {}).get("lr"),
        **_changed(config, plan["changes"]),
    }
    if last:
        used = {k.removeprefix("tokens/"): v for k, v in last.items() if k.startswith("tokens/")}
        shown["time"] = f"{float(last.get('seconds') or 0) / 60:.1f} minutes"
        shown["tokens"] = ", ".join(f"{amount(float(v), '')} {k}" for k, v in used.items())
        shown["model FLOPs"] = f"{float(last.get('flops') or 0):.3g}"
    return _table(shown)


def _changed(config: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that are other than their defaults: a plan that was written out in full says all of them."""
    recipe = _recipe(config)
    if recipe is None:
        return dict(changes)
    usual = {f"run.{n}": v for n, v in plain(run_settings(recipe.all_defaults, {}).__dict__).items()}
    for name, part in resolved_stages(recipe).items():
        usual |= {f"{name}.{n}": plain(v) for n, v in part.checked(name).items()}
    now = {f"run.{n}": v for n, v in config["settings"].items()}
    for name, found in (config.get("stages") or {}).items():
        now |= {f"{name}.{n}": v for n, v in found.items()}
    return {k: v for k, v in changes.items() if k not in now or now[k] != usual.get(k, now)}


def _findings(run: RunDirectory) -> list[str]:
    """What the run's own watch found, in its words."""
    found = {str(f.get("name")): f for f in reversed(run.findings())}  # the first of each kind
    lines = [f"- step {f['step']}: {_plain(f.get('message'))}" for f in reversed(found.values())]
    return ["What the run's health check found:", "\n".join(lines)] if lines else []


def _environment(card: Mapping[str, Any]) -> str:
    machine = card.get("machine", {})
    shown = {
        "etude": f"{card.get('etude')} (commit {card.get('commit')})",
        "python": card.get("python"),
        **card.get("versions", {}),
        "machine": f"{machine.get('cores')} cores, {machine.get('processor')}, {machine.get('system')}",
    }
    return _table(shown)


def _licence(base: Base) -> str:
    if base.licence:
        return f"That of the base model, as its card states it: {base.licence}."
    return f"The files at hand do not state the licence of the base model ({base.said}); find it out before passing this on."


def _use(name: str, base: Base, adapter: bool) -> str:
    load = (
        f'from peft import AutoPeftModelForCausalLM\n\nmodel = AutoPeftModelForCausalLM.from_pretrained("{name}")'
        if adapter
        else f'from transformers import pipeline\n\nask = pipeline("text-generation", model="{name}")'
    )
    return f"```python\n{load}\n```\n\nOr `etude ask {name}`, `etude serve {name}`."


def _asked(config: Mapping[str, Any]) -> list[str]:
    """How questions were put in training, where that is more than their own words: whoever asks otherwise asks another model."""
    settings = config["settings"]
    kept = {name: settings.get(name) for name in ("system", "prompt", "thinking", "stop")}
    kept = {name: value for name, value in kept.items() if value not in (None, "", [])}
    if own := not settings.get("system") and config.get(SYSTEM):
        kept["system"] = own
    if examples := recorded(config):
        kept["examples"] = [list(pair) for pair in examples]
    if not kept:
        return []
    said = "In training every question stood in the text `prompt`, behind the system message and the solved `examples`, as far as they are"
    end = "here; `etude ask` and `etude serve` put it so by themselves (`etude.json`)."
    facts = json.dumps(kept, indent=2, ensure_ascii=False).replace("```", "` ` `")
    return [f"{said} {end}", f"```json\n{facts}\n```"]


def _table(rows: Mapping[str, Any]) -> str:
    lines = [f"| {_plain(k)} | {_plain(v)} |" for k, v in rows.items() if v is not None]
    return "\n".join(["| | |", "|---|---|", *lines])


def _plain(value: Any) -> str:
    """Text that keeps to its cell."""
    return re.sub(r"\s+", " ", str(value)).replace("|", "\\|").replace("<", "&lt;")
