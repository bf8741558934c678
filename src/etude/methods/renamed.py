"""Settings that had another name in an earlier version: {recipe: {old: new}}. The old name is refused with the new one."""

RENAMED_SETTINGS: dict[str, dict[str, str]] = {}
