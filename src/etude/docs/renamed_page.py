"""docs/renamed-settings.md: the settings of single methods that had another name in an earlier version."""

from __future__ import annotations

from collections.abc import Mapping

from etude.docs.papers import table_row
from etude.methods.renamed import renamed_settings


def renamed_page(renamed: Mapping[str, Mapping[str, str]] | None = None) -> str:
    """The table as Markdown, from {recipe: {old: new}} (default: `renamed_settings`)."""
    rows = [
        table_row((f"`{recipe}`", f"`{old}`", f"`{new}`"))
        for recipe, names in sorted((renamed or renamed_settings()).items())
        for old, new in names.items()
    ]
    return "\n".join(
        [
            "# Renamed settings",
            "",
            "Made by `python -m etude.docs.method_docs`. An old name is refused, and the refusal names the new one. Names of the",
            "run and of stages that changed for all recipes stand in [CHANGELOG](../CHANGELOG.md).",
            "",
            table_row(("recipe", "until 0.1", "since 0.2")),
            table_row(["---"] * 3),
            *rows,
            "",
        ]
    )
