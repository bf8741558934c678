"""What is made once and kept: models and kernels, in the user's cache directory. Where that cannot be written (a container
without a home, a read-only disk), in a temporary directory of this process and of those that it starts."""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import platformdirs

from etude.errors import UserError
from etude.files import disk_full
from etude.printable import say

TEMPORARY = (
    "ETUDE_TEMPORARY_CACHE"  # environment variable: that directory, for the processes that this one starts
)


def kept(*parts: str) -> Path:
    """Where something is kept in the user's cache directory, if it is there."""
    return Path(platformdirs.user_cache_path("etude").joinpath(*parts))


def writable(place: Path) -> Path:
    """`place`, in a directory where it can be made; or its like in a temporary one, which is said once. Raises UserError
    where neither can be written."""
    try:
        _try(place.parent)
        return place
    except OSError as error:
        return _temporary(place, error) / place.parent.name / place.name


def made(place: Path, whole: Callable[[Path], bool], make: Callable[[Path], None]) -> Path:
    """A directory that is there as a whole, or is made now, beside its place, and then moved. Two processes may do this at
    once. Raises UserError where the disk is full."""
    if whole(place):
        return place
    place = writable(place)
    if whole(place):
        return place
    work = Path(tempfile.mkdtemp(dir=place.parent, prefix=".making-"))
    try:
        make(work)
        if not whole(place):  # another process may have been faster: what it made is as good
            shutil.rmtree(place, ignore_errors=True)
            with contextlib.suppress(OSError):
                os.replace(work, place)
            if not whole(place):
                raise UserError(f"'{place}' could not be made")
    except Exception as error:
        if disk_full(error):
            raise UserError(
                f"the disk of '{place.parent}' is full; free some space there, or set XDG_CACHE_HOME to a directory that "
                "has room"
            ) from error
        raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return place


def _try(directory: Path) -> None:
    """Raises OSError where nothing can be written in `directory`."""
    if not directory.is_absolute():
        raise FileNotFoundError(2, "there is no home directory")
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=directory):
        pass


def _temporary(place: Path, why: OSError) -> Path:
    known = os.environ.get(TEMPORARY)
    if known is None:
        known = _begin(place, why)
    (Path(known) / place.parent.name).mkdir(exist_ok=True)
    return Path(known)


def _begin(place: Path, why: OSError) -> str:
    refused = f"'{place.parent}' cannot be written ({why.strerror or why})"
    wanted = "set XDG_CACHE_HOME to a directory that can be written"
    try:
        directory = tempfile.mkdtemp(prefix="etude-")
    except OSError as error:
        raise UserError(f"{refused}, nor is there a temporary directory; {wanted}") from error
    os.environ[TEMPORARY] = directory
    maker = os.getpid()

    def remove() -> None:
        if os.getpid() == maker:  # not a fork of it
            shutil.rmtree(directory, ignore_errors=True)

    atexit.register(remove)
    say(
        f"etude: {refused}; '{directory}' is used until this command ends. To keep what is made, {wanted}",
        err=True,
    )
    return directory
