"""The words that the laboratory's model knows: those of the recipes' own default texts, collected from the recipes, and
those with which it was taught. Words, digits, capital letters and signs are a token each; any other word is <unk>, not
letters, which in the laboratory are things to be sorted and looked up."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterable, Iterator
from types import ModuleType

from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as Backend

from etude import methods, rollout
from etude.evaluate import transitions
from etude.models.tiny import SPECIAL
from etude.rollout import full
from etude.tasks import check

TAGS = tuple(f"<{end}{name}>" for name in ("answer", "prompt", "tool", "think") for end in ("", "/"))
SIGNS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 \n.,:;!?+-*/=()[]{}<>'\"_#|\\"
SHOUTED = re.compile(r"(?<![A-Z])[A-Z]{5,}(?![A-Z])")  # [INCORRECT RATIONALE]; shorter ones are letters
ABOUT = ("DEPARTURES", "CLAIM", "MEASURED")  # constants of methods that speak to people
WORD = r"[A-Za-z]?[a-z]+"


def default_texts() -> dict[str, str]:
    """{where: text} of whatever the recipes say to a policy of their own accord: the defaults of their stages' settings,
    and the texts that stand as constants in the modules of methods and rollouts."""
    found: dict[str, str] = {}
    for recipe in methods.catalogue().values():
        for name, stage in recipe.stages.items():
            for setting, value in stage:
                if isinstance(value, str) and not setting.setting.choices:
                    found[f"{recipe.name} {name}.{setting.name}"] = value
    own = (
        m for m in _modules(rollout) if m is not full
    )  # said where run.when_full asks for it, by no recipe
    for module in (*_modules(methods), *own, transitions, check):
        for name, value in vars(module).items():
            if re.fullmatch(r"[A-Z][A-Z_]+", name) and name not in ABOUT:
                for i, text in enumerate(_texts(value)):
                    found[f"{module.__name__}.{name} {i}"] = text
    return {where: text for where, text in found.items() if " " in text.strip()}


def _modules(package: ModuleType) -> Iterator[ModuleType]:
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        yield importlib.import_module(module.name)


def _texts(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [v for v in value.values() if isinstance(v, str)]
    return [v for v in value if isinstance(v, str)] if isinstance(value, tuple | list) else []


def words_of(texts: Iterable[str], shouted: bool = True) -> list[str]:
    """The words of texts, sorted; {fields} are none, nor, unless `shouted`, runs of capitals."""
    found: set[str] = set()
    for text in texts:
        bare = re.sub(r"\{\w*\}|</?[a-z]+>", " ", text)
        found |= set(re.findall(WORD, bare)) | set(SHOUTED.findall(bare) if shouted else ())
    return sorted(found)


def tokenizer(words: Iterable[str]) -> Backend:
    """The tokenizer for these words. A word is a token with and without the blank before it."""
    listed = list(dict.fromkeys(words))
    table = [*SPECIAL, *SIGNS, *TAGS, *listed, *(f" {word}" for word in listed)]
    backend = Backend(models.WordLevel({w: i for i, w in enumerate(dict.fromkeys(table))}, unk_token="<unk>"))
    shouted = [f" ?{word}(?![A-Z])" for word in listed if SHOUTED.fullmatch(word)]
    pattern = "|".join([*TAGS, *shouted, f" ?{WORD}", r"[\s\S]"])
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), "isolated")
    backend.decoder = decoders.Fuse()
    backend.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in SPECIAL])
    return backend


def unknown(backend: Backend, text: str) -> list[str]:
    """The words of a text that the tokenizer does not know."""
    return [w for w in words_of([text]) if backend.token_to_id(w) is None]
