"""Things that are found by name: etude's own, listed as `module:name` and imported when first used, and those that
other packages declare as entry points of the same group."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from etude.errors import UserError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint


@dataclass(frozen=True)
class Registry(Mapping[str, Any]):
    """`group`: the group of entry points. `own`: name -> "module:name"; it wins over an entry point's."""

    group: str
    own: Mapping[str, str]

    def __getitem__(self, name: str) -> Any:
        """What is registered under `name`, imported now. Raises KeyError, or UserError where the import fails."""
        if name in self.own:
            module, _, attribute = self.own[name].partition(":")
            return getattr(import_module(module), attribute)
        entry = self._others()[name]
        try:
            return entry.load()
        except Exception as error:
            raise UserError(
                f"'{name}', the entry point {entry.value} of group {self.group}, cannot be imported: {error}"
            ) from error

    def __iter__(self) -> Iterator[str]:
        return iter(sorted({*self.own, *self._others()}))

    def __len__(self) -> int:
        return len({*self.own, *self._others()})

    def __contains__(self, name: object) -> bool:
        return name in self.own or name in self._others()

    def _others(self) -> dict[str, EntryPoint]:
        return declared(self.group, tuple(sys.path))


@cache
def declared(group: str, path: tuple[str, ...]) -> dict[str, EntryPoint]:
    """Entry points by name. Read once for each `path`: the files of every installed package are opened for it."""
    from importlib import metadata  # takes as long to import as everything that a checking process needs

    return {entry.name: entry for entry in metadata.entry_points(group=group)}
