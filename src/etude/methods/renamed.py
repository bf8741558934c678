"""Settings that had another name in an earlier version (`renamed.toml`). The old name is refused with the new one."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path


@cache
def renamed_settings() -> dict[str, dict[str, str]]:
    """{recipe: {old: new}}."""
    return tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
