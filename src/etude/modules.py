"""Python files and modules of the user's, imported by path or by name; what goes wrong is one sentence."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
import traceback
from functools import cache
from pathlib import Path
from types import ModuleType

from etude.errors import UserError


def load(path: Path) -> ModuleType:
    """The module in the file, made once per content. Raises UserError."""
    return _load(path, content(path))


@cache
def _load(path: Path, content: str) -> ModuleType:
    """Its name says where it lies, so that a resumed run finds its stages under the names that they had."""
    name = f"{path.stem}_{hashlib.blake2b(str(path).encode(), digest_size=4).hexdigest()}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and type hints look themselves up there
    _reach(path.parent)
    try:
        # Compiled from the text: bytecode in a cache is told apart by size and whole seconds only.
        exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), module.__dict__)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise UserError(f"'{path}' cannot be imported: {_cause(error, str(path))}") from error
    return module


def imported(name: str) -> ModuleType:
    """The module called `name`, which may lie in the working directory. Raises UserError."""
    _reach(Path.cwd())
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(error.name + ".")):
            raise UserError(
                f"there is no module '{name}'; it must be installed, or lie in the working directory or on PYTHONPATH"
            ) from None
        raise UserError(f"the module '{name}' cannot be imported: {_cause(error)}") from error
    except (Exception, SystemExit) as error:
        raise UserError(f"the module '{name}' cannot be imported: {_cause(error)}") from error


def content(path: Path) -> str:
    """A hash of the file's bytes."""
    return hashlib.blake2b(path.read_bytes(), digest_size=8).hexdigest()


def _reach(folder: Path) -> None:
    """Modules that lie in `folder` can be imported, after those of the library and of installed packages."""
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


def _cause(error: BaseException, path: str = "") -> str:
    """What went wrong, and in which line: the last one in the file, or of all."""
    said = f"{type(error).__name__}: {error}"
    if isinstance(error, SyntaxError):
        return f"line {error.lineno}, SyntaxError: {error.msg}"
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if f.filename == path] if path else frames[-1:]
    if not own:
        return said
    return f"line {own[-1].lineno}, {said}" if path else f"{own[-1].filename}, line {own[-1].lineno}, {said}"
