"""A house of rooms with things in containers, some shut, one locked: find a thing and put it where it is wanted."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from etude.tasks.kind import Kind, Made, out_of_range
from etude.tasks.source import item_seed
from etude.tasks.spec import Param
from etude.tasks.worlds.commands import forms_of
from etude.tasks.worlds.play import COMMON, Rules, World, limited

ROOMS = ("hall", "kitchen", "study", "bedroom", "cellar", "attic", "garage")
SURFACES = ("table", "shelf", "bench", "desk")
CONTAINERS = ("fridge", "chest", "drawer", "cupboard", "box", "basket", "wardrobe", "safe")
THINGS = ("apple", "book", "lamp", "cup", "coin", "hat", "letter", "spoon", "plate", "pen")
KEY = "key"
HANDS = "hands"


@dataclass(frozen=True)
class Place:
    name: str
    room: str
    shut: bool = False
    locked: bool = False


@dataclass(frozen=True)
class House:
    """Makes a fresh attempt. `doors`: pairs of rooms; `things`: (thing, place). One begins in the first room."""

    rooms: tuple[str, ...]
    doors: tuple[tuple[str, str], ...]
    places: tuple[Place, ...]
    things: tuple[tuple[str, str], ...]
    thing: str
    target: str
    rules: Rules

    def __call__(self, seed: int = 0) -> HouseWorld:
        """A new attempt; nothing in it is left to chance."""
        return HouseWorld(self)

    def beside(self, room: str) -> list[str]:
        """The rooms next to a room, by the order of `rooms`."""
        next_to = {b if a == room else a for a, b in self.doors if room in (a, b)}
        return [r for r in self.rooms if r in next_to]


class Commands:
    """What can be done in a house."""

    @staticmethod
    def go(room: str) -> str:
        """Go to a room that is next to this one."""
        return f"go to {room}"

    @staticmethod
    def unlock(place: str) -> str:
        """Unlock a place in this room, with the key in your hands."""
        return f"unlock {place}"

    @staticmethod
    def open(place: str) -> str:
        """Open a place in this room that is shut."""
        return f"open {place}"

    @staticmethod
    def take(thing: str) -> str:
        """Take a thing that you see in this room."""
        return f"take {thing}"

    @staticmethod
    def put(thing: str, place: str) -> str:
        """Put a thing that you hold into a place in this room that is open."""
        return f"put {thing} in {place}"


class HouseWorld(World):
    """One attempt. Commands: go to ROOM, open PLACE, unlock PLACE, take THING, put THING in PLACE."""

    forms = forms_of(Commands)

    def __init__(self, plan: House) -> None:
        super().__init__(plan)
        self._house = plan
        self.room = plan.rooms[0]
        self.at = dict(plan.things)  # thing -> place, or HANDS
        self.shut = {p.name for p in plan.places if p.shut}
        self.locked = {p.name for p in plan.places if p.locked}
        self.visited = {self.room}
        self.was_held = False

    def look(self) -> str:
        house = self._house
        seen = "; ".join(self._place(p.name) for p in house.places if p.room == self.room)
        doors = ", ".join(house.beside(self.room))
        held = ", ".join(self._in(HANDS)) or "nothing"
        way = f" Doors lead to: {doors}." if doors else ""
        return f"You are in the {self.room}. There is: {seen or 'nothing'}.{way} You hold: {held}."

    def actions(self) -> list[str]:
        house, here = self._house, [p.name for p in self._house.places if p.room == self.room]
        held = self._in(HANDS)
        found = [f"go to {room}" for room in house.beside(self.room)]
        found += [f"unlock {p}" for p in here if p in self.locked and KEY in held]
        found += [f"open {p}" for p in here if p in self.shut and p not in self.locked]
        reached = [p for p in here if p not in self.shut]
        found += [f"take {t}" for p in reached for t in self._in(p)]
        return found + [f"put {t} in {p}" for t in held for p in reached]

    def do(self, command: str) -> str | None:
        command = command.lower().replace(" the ", " ").replace(" on ", " in ").replace(" into ", " in ")
        if command not in self.actions():
            return None
        verb, _, rest = command.partition(" ")
        if verb == "go":
            self.room = rest.removeprefix("to ")
            self.visited.add(self.room)
        elif verb == "unlock":
            self.locked.discard(rest)
        elif verb == "open":
            self.shut.discard(rest)
        elif verb == "take":
            self.at[rest] = HANDS
            self.was_held = self.was_held or rest == self._house.thing
        else:
            thing, _, place = rest.partition(" in ")
            self.at[thing] = place
        return ""

    def milestones(self) -> Sequence[tuple[str, bool]]:
        thing, target = self._house.thing, self._house.target
        placed = self.at[thing] == target
        return [
            (f"the {thing} in your hands", self.was_held or placed),
            (f"the {thing} in the {target}", placed),
        ]

    def expert(self) -> str:
        thing, target = self._house.thing, self._house.target
        if self.at[thing] == HANDS:
            place = self._known(target)
            if place is None:
                return self._search()
            if target not in self.locked:
                return self._reach(place, f"put {thing} in {target}")
            if self.at.get(KEY) == HANDS:
                return self._towards(place.room) or f"unlock {target}"
            return self._fetch(KEY)
        return self._fetch(thing)

    # ---- what the expert does -------------------------------------------------------------------------

    def _fetch(self, thing: str) -> str:
        place = self._known(self.at[thing])
        if place is not None and place.name not in self.shut:
            return self._towards(place.room) or f"take {thing}"
        return self._search()

    def _reach(self, place: Place, then: str) -> str:
        return self._towards(place.room) or (f"open {place.name}" if place.name in self.shut else then)

    def _search(self) -> str:
        """Opens what is shut in this room, then goes to the nearest room in which there is something left to see."""
        unseen = [p for p in self._house.places if p.name in self.shut and p.name not in self.locked]
        here = [p for p in unseen if p.room == self.room]
        if here:
            return f"open {here[0].name}"
        rooms = {p.room for p in unseen if p.room in self.visited}
        return self._towards(*rooms, *(r for r in self._house.rooms if r not in self.visited))

    def _towards(self, *rooms: str) -> str:
        """The first step on the shortest way to one of the rooms; "" where one is in it. A room that was never entered is
        known by the doors that lead to it."""
        before: dict[str, str] = {self.room: ""}
        queue = deque([self.room])
        while queue:
            room = queue.popleft()
            if room in rooms:
                while before[room] not in ("", self.room):
                    room = before[room]
                return f"go to {room}" if before[room] else ""
            for other in self._house.beside(room) if room in self.visited else ():
                if other not in before:
                    before[other] = room
                    queue.append(other)
        raise RuntimeError(f"no way leads to {', '.join(rooms) or 'anything unseen'}")

    def _known(self, name: str) -> Place | None:
        place = next((p for p in self._house.places if p.name == name), None)
        return place if place is not None and place.room in self.visited else None

    def _in(self, place: str) -> list[str]:
        return [thing for thing, where in self.at.items() if where == place]

    def _place(self, name: str) -> str:
        if name in self.shut:
            return f"{name} ({'locked' if name in self.locked else 'shut'})"
        return f"{name} ({', '.join(self._in(name)) or 'empty'})"


def _make(s: dict[str, Any], seed: int) -> Made:
    draw = random.Random(item_seed("house", seed))
    rooms = tuple(draw.sample(ROOMS, s["rooms"]))
    doors = tuple((draw.choice(rooms[:i]), rooms[i]) for i in range(1, len(rooms)))  # a tree
    names = draw.sample(CONTAINERS, s["containers"])
    tops = draw.sample(SURFACES, min(len(SURFACES), (s["rooms"] + 1) // 2))
    target = names[0] if s["locked"] else draw.choice([*names, *tops])
    where = [Place(n, draw.choice(rooms), n in names, s["locked"] and n == target) for n in [*names, *tops]]
    draw.shuffle(where)
    open_to = [p.name for p in where if p.name != target]
    things = [(t, draw.choice(open_to)) for t in draw.sample(THINGS, s["things"])]
    thing = draw.choice(things)[0]
    if s["locked"]:
        things.append((KEY, draw.choice(open_to)))
    house = limited(House(rooms, doors, tuple(where), tuple(things), thing, target, Rules.of(s)), s)
    how = house.rules.ask(
        "one command: go to ROOM, open PLACE, unlock PLACE (with the key in your hands), take THING, put THING in PLACE"
    )
    prompt = f"You are in a house. Put the {thing} in the {target}. {how}"
    return Made(
        prompt, house, [rooms, doors, [repr(p) for p in where], things, thing, target, house.rules.turns]
    )


KIND = Kind(
    "A house of rooms and containers: find a thing and put it where it is wanted",
    (
        Param("rooms", int, 1, "1 to 7"),
        Param("containers", int, 3, "things that can be shut, 2 to 8"),
        Param("things", int, 2, "1 to 10"),
        Param("locked", bool, False, "the thing is wanted in a locked container, whose key is to be found"),
        *COMMON,
    ),
    (
        {"rooms": 1, "containers": 3, "things": 2, "longest": 10},
        {"rooms": 3, "containers": 5, "things": 4, "longest": 25},
        {"rooms": 5, "containers": 8, "things": 6, "locked": True, "longest": 50},
    ),
    lambda s: out_of_range(s, rooms=(1, 7), containers=(2, 8), things=(1, 10), turns=(0, 1000)),
    _make,
)
