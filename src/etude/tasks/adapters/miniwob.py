"""Pages of MiniWoB++ in a headless Chromium, driven by Playwright: `miniwob:click-button`, `miniwob:login-user,turns=10`.

The package `miniwob` brings the pages. Elements that can be seen are listed with numbers, and commands name them by number, so
pages that want a pointer to be drawn or dragged cannot be won.
"""

from __future__ import annotations

import asyncio
import atexit
import functools
import importlib.util
import re
import shutil
import threading
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from etude.errors import UserError, nearest
from etude.tasks.adapters.absent import Adapter, Catalogued, World, WorldSource
from etude.tasks.adapters.miniwob_page import LIST, START, STATE
from etude.tasks.kind import FEEDBACK, feedback_text
from etude.tasks.spec import Param
from etude.tasks.worlds.commands import COMMANDS, TOOLS, Commanded, asked, forms_of
from etude.types import Verdict

T = TypeVar("T")
ADAPTER = Adapter(
    "miniwob",
    "miniwob",
    "miniwob",
    "Web pages of MiniWoB++ in a headless Chromium, by miniwob:PAGE",
    (
        Param("page", str, "", "the page, as in click-button"),
        Param("turns", int, 8, "turns allowed"),
        COMMANDS,
        FEEDBACK,
    ),
)
UNKNOWN = "That cannot be done."
SECONDS = 60.0  # for one action
PATIENCE = 2_000  # milliseconds in which an element must be ready to be clicked


class Commands:
    """What can be done on a page."""

    @staticmethod
    def click(number: int) -> str:
        """Click an element, by its number."""
        return f"click {number}"

    @staticmethod
    def type(number: int, text: str) -> str:
        """Type a text into a field, in the place of what it holds."""
        return f"type {number}: {text}"

    @staticmethod
    def choose(number: int, option: str) -> str:
        """Choose an option of a list."""
        return f"choose {number}: {option}"


@dataclass(frozen=True)
class Page:
    """Makes a fresh attempt at a page as its seed draws it."""

    name: str
    seed: int
    turns: int = 8
    tools: bool = False
    feedback: str = "unary"

    def __call__(self, seed: int = 0) -> PageWorld:
        """A new attempt; the page is the same."""
        return PageWorld(self)


@dataclass(frozen=True)
class Seen:
    """What a page shows: its question, and its elements, a line each; what numbers name: {number: (what it is, its options)}."""

    question: str
    lines: tuple[str, ...]
    elements: Mapping[int, tuple[str, tuple[str, ...]]]

    def __str__(self) -> str:
        return "\n".join([f"Task: {self.question}", *self.lines])


class PageWorld(Commanded):
    """One attempt: a tab of its own. Commands: click NUMBER, type NUMBER: TEXT, choose NUMBER: OPTION."""

    blocking = True  # the browser is waited for
    forms = forms_of(Commands)
    code = True

    def __init__(self, plan: Page) -> None:
        super().__init__(plan.tools, plan.turns)
        self._plan, self._taken = plan, 0
        self._tab: Any = None
        self._seen: Seen | None = None

    def observe(self) -> str:
        """What the page asks, and what it shows."""
        return str(self._look())

    def actions(self) -> list[str]:
        """Clicks on all elements, and what the question quotes, or else its words, in all fields."""
        seen = self._look()
        words = re.findall(r'"([^"]+)"', seen.question) or re.findall(r"\w+", seen.question)
        found = [f"click {n}" for n in seen.elements]
        found += [
            f"type {n}: {w}" for n, (what, _) in seen.elements.items() if what == "field" for w in words
        ]
        return found + [f"choose {n}: {o}" for n, (_, options) in seen.elements.items() for o in options]

    def close(self) -> None:
        """Closes the tab. May be called twice."""
        if self._tab is not None:
            tab, self._tab = self._tab, None
            chromium().run(tab.close())

    def _carried(self, command: str) -> tuple[str, Verdict | None]:
        self._look()
        self._taken += 1
        done = chromium().run(self._do(command))
        over, raw = chromium().run(self._tab.evaluate(STATE))
        if not over and self._taken < self._plan.turns:
            self._seen = None
            return f"{'' if done else UNKNOWN}\n{self._look()}".strip(), None
        reward = min(1.0, max(0.0, float(raw))) if over else 0.0
        unary = "That was not what the page asked for." if over else "You have no turns left."
        told = feedback_text(self._plan.feedback, unary, unary, unary) if reward < 1 else ""
        self._verdict = Verdict(reward, reward == 1, told)
        return ("You have done it." if reward == 1 else unary), self._verdict

    def _look(self) -> Seen:
        if self._tab is None:
            self._tab = chromium().run(chromium().opened(self._plan.name, self._plan.seed))
        if self._seen is None:
            question, lines, elements = chromium().run(self._tab.evaluate(LIST))
            self._seen = Seen(
                question, tuple(lines), {int(n): (what, tuple(options)) for n, what, options in elements}
            )
        return self._seen

    async def _do(self, command: str) -> bool:
        """Whether a command could be carried out."""
        from playwright.async_api import Error

        found = re.fullmatch(r"(click|type|choose) (\d+)(?:: ?(.*))?", command, re.IGNORECASE)
        seen = self._seen.elements if self._seen else {}
        if found is None or int(found[2]) not in seen or (found[3] is None) != (found[1].lower() == "click"):
            return False
        verb, number, text = found[1].lower(), int(found[2]), found[3] or ""
        what, options = seen[number]
        element = self._tab.locator(f'[data-etude="{number}"]')
        try:
            if verb == "click":
                await element.click(timeout=PATIENCE)
            elif verb == "type" and what == "field":
                await element.fill("", timeout=PATIENCE)
                await element.press_sequentially(text, timeout=PATIENCE)
            elif verb == "choose" and text in options:
                await element.select_option(label=text, timeout=PATIENCE)
            else:
                return False
        except Error:  # hidden by another one, gone, or not to be written to
            return False
        return True


class Chromium:
    """The browser of this process, with an event loop of its own in a thread: callers wait in theirs."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="etude-chromium", daemon=True).start()
        self._driver: Any = None
        self._browser = self.run(self._begun())
        atexit.register(self._end)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(SECONDS)

    async def opened(self, name: str, seed: int) -> Any:
        """A tab with a page that has drawn its task; it reaches nothing but its own files."""
        tab = await self._browser.new_page(offline=True, viewport={"width": 400, "height": 400})
        await tab.goto((pages() / f"{name}.html").as_uri())
        await tab.evaluate(START, seed)
        return tab

    async def _begun(self) -> Any:
        from playwright.async_api import Error, async_playwright

        self._driver = await async_playwright().start()
        try:
            return await self._driver.chromium.launch(executable_path=shutil.which("chromium"))
        except Error as error:
            await self._driver.stop()
            said = next((line.strip() for line in str(error).splitlines() if line.strip()), "no reason given")
            raise UserError(
                f"task 'miniwob': no Chromium can be started ({said[:150]}); playwright install chromium"
            ) from None

    def _end(self) -> None:
        async def ended() -> None:
            await self._browser.close()
            await self._driver.stop()

        self.run(ended())


@functools.cache
def chromium() -> Chromium:
    """Started at first use. Raises UserError where there is none."""
    return Chromium()


def pages() -> Path:
    """Where the pages lie; the package itself, which would load Selenium, is not imported."""
    spec = importlib.util.find_spec("miniwob")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "html" / "miniwob"


def source(name: str, given: Mapping[str, Any] | None = None, called: str | None = None) -> Any:
    """A page as a source. Raises UserError."""
    if not given:
        return Catalogued(ADAPTER)
    own = ADAPTER.read(given, "page")
    if importlib.util.find_spec("playwright") is None:
        raise UserError(f"task 'miniwob': playwright is not installed; pip install 'etude[{ADAPTER.extra}]'")
    known = sorted(file.stem for file in pages().glob("*.html"))
    if own["page"] not in known:
        raise UserError(f"task 'miniwob' has no page '{own['page']}'{nearest(own['page'], known)}")
    if own["turns"] < 1:
        raise UserError(f"task 'miniwob': turns={own['turns']} is out of range; it must be at least 1")
    as_tools = own["commands"] == TOOLS
    how = asked("one command: click NUMBER, type NUMBER: TEXT, choose NUMBER: OPTION", as_tools)

    def make(seed: int) -> World:
        plan = Page(own["page"], seed % 2**31, own["turns"], as_tools, own["feedback"])
        world = plan()
        try:
            shown = world.observe()
        finally:
            world.close()
        return World(f"You see a web page. Do what its task says. {how}", plan, [own["page"], shown])

    return WorldSource(called or name, ADAPTER.info, make, sorted(own.items(), key=repr), own["feedback"])
