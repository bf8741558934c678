"""What can go wrong, by whose doing: a `UserError` is the user's to mend and exits 2; the rest is ours."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Input that cannot be used. The message is one sentence: what was wrong, where, what would be right."""


class Refused(UserError):
    """A run that would be able to start but not to learn, or not to be trusted; names the cause."""


LISTED = 24


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` or what is known, at most `LISTED` names, to close a sentence with."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if close:
        return f"; did you mean '{close[0]}'?"
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return f"; known: {', '.join(names[:LISTED])}{more}" if names else ""
