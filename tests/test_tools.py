"""Tools: what a call is, what it gives, what it costs, and that nothing that a model writes ends a run."""

from __future__ import annotations

import asyncio
import sqlite3
import string
import sys
import time
from pathlib import Path
from typing import Any, Literal

import pytest

from etude.errors import UserError
from etude.models.tiny import TEMPLATE, tiny_directory
from etude.tasks.check import Number
from etude.tasks.isolate import Pool
from etude.text.chat_template import Renderer
from etude.text.tokenizer import read
from etude.text.tool_calls import HERMES, LLAMA, TAGS, Call, Offer, Unreadable
from etude.tools import shipped, spec
from etude.tools.kit import Budgets, Kit, ToolSession, use_of
from etude.tools.tool import ToolError, described, tool
from etude.types import Message, Task

TASK = Task("What is 3 * 4?", Number("12"), answer="12")


def add(a: int, b: int = 1, how: Literal["plain", "loud"] = "plain") -> str:
    """Adds two numbers.

    Args:
        a: the first
        b: the second
    """
    return f"{a + b}{'!' if how == 'loud' else ''}"


def run(
    kit: Kit, *calls: Call | Unreadable, session: ToolSession | None = None, last: bool = False
) -> list[str]:
    session = session or kit.session(TASK, 0)
    assert session is not None
    return [m.content for m in asyncio.run(session.answer(calls, last))]


def kit(text: str, pool: Pool | None = None, **budgets: Any) -> Kit:
    return Kit(spec.sources(text, pool or Pool()), Budgets(**budgets))


# ---- a function --------------------------------------------------------------------------------------


def test_a_function_says_what_it_takes() -> None:
    made = tool(add).schema
    assert made["name"] == "add"
    assert made["description"] == "Adds two numbers."
    properties = made["parameters"]["properties"]
    assert properties["a"] == {"description": "the first", "type": "integer"}
    assert properties["how"]["enum"] == ["plain", "loud"]
    assert made["parameters"]["required"] == ["a"]


@pytest.mark.parametrize("arguments", [{"a": "x"}, {}, {"a": 1, "c": 2}, {"a": 1, "how": "soft"}])
def test_arguments_that_do_not_fit_are_said(arguments: dict[str, Any]) -> None:
    with pytest.raises(ToolError, match="add was called with what it does not take"):
        tool(add).run(arguments)


def test_text_of_a_number_is_a_number() -> None:
    assert tool(add).run({"a": "3", "b": "4"}) == "7"


def test_a_function_without_types_is_refused() -> None:
    def bare(x):  # type: ignore[no-untyped-def]
        return x

    with pytest.raises(UserError, match="write x: str"):
        described(bare)


# ---- how a model calls -------------------------------------------------------------------------------

SCHEMAS = (tool(shipped.calculator).schema, tool(add).schema)


@pytest.mark.parametrize(
    ("syntax", "text", "found"),
    [
        (TAGS, "So <calculator>3 * 4</calculator>", [Call("calculator", {"expression": "3 * 4"})]),
        (TAGS, '<add>{"a": 3, "b": 4}</add>', [Call("add", {"a": 3, "b": 4})]),
        (TAGS, "<think><calculator>1</calculator></think>12", []),
        (TAGS, "<answer>12</answer>", []),
        (HERMES, '<tool_call>\n{"name": "add", "arguments": {"a": 3}}\n</tool_call>', [Call("add", {"a": 3})]),
        (HERMES, '<tool_call>{"name": "add", "arguments": "{\\"a\\": 3}"}</tool_call>', [Call("add", {"a": 3})]),
        (LLAMA, '{"name": "add", "parameters": {"a": 3}}', [Call("add", {"a": 3})]),
        (LLAMA, "{1, 2} is a set", []),
    ],
)  # fmt: skip
def test_calls_are_found(syntax: Any, text: str, found: list[Any]) -> None:
    assert Offer(SCHEMAS, syntax).calls(text) == found


@pytest.mark.parametrize("syntax", [TAGS, HERMES, LLAMA])
def test_what_is_written_is_read(syntax: Any) -> None:
    offer = Offer(SCHEMAS, syntax)
    calls = [
        Call("calculator", {"expression": "3 * 4"}),
        Call("calculator", {"expression": '{"expression": "é"}'}),
        Call("add", {"a": 3, "b": 4, "how": "loud"}),
    ]
    words = "" if syntax is LLAMA else "So:"
    for some in [[c] for c in calls] + [calls]:
        said = offer.write(words, some)
        assert (offer.calls(said), offer.split(said)) == (some, (words, some))
    assert offer.split("12, not <add>") == ("12, not <add>", []), "nothing is called, or it cannot be read"


def test_several_calls_of_a_reply() -> None:
    both = "".join(f'<tool_call>{{"name": "add", "arguments": {{"a": {a}}}}}</tool_call>' for a in (1, 2))
    assert Offer(SCHEMAS, HERMES).calls(both) == [Call("add", {"a": 1}), Call("add", {"a": 2})]
    both = '{"name": "add", "parameters": {"a": 1}}; {"name": "add", "parameters": {"a": 2}}'
    assert Offer(SCHEMAS, LLAMA).calls(both) == [Call("add", {"a": 1}), Call("add", {"a": 2})]


@pytest.mark.parametrize(
    ("syntax", "text", "why"),
    [
        (TAGS, "<calculator>3 * 4", "no end"),
        (TAGS, "<add>3 and 4</add>", "must read"),
        (HERMES, "<tool_call>{3}</tool_call>", "no JSON"),
        (HERMES, '<tool_call>{"name": "add"', "no </tool_call>"),
        (HERMES, '<tool_call>{"arguments": {}}</tool_call>', "must read"),
        (HERMES, '<tool_call>{"name": "add", "arguments": [3]}</tool_call>', "must be a JSON object"),
        (LLAMA, '{"name": "add", "parameters"', "no JSON"),
    ],
)
def test_what_cannot_be_read_is_said(syntax: Any, text: str, why: str) -> None:
    (found,) = Offer(SCHEMAS, syntax).calls(text)
    assert isinstance(found, Unreadable)
    assert why in found.why
    (said,) = run(kit("calculator"), found)
    assert said.startswith("Error: ")


NATIVE = (
    "{% if tools %}{{ '<system>' }}{% for t in tools %}{{ t | tojson }}{% endfor %}{{ '<tool_call>' }}{{ '<end>' }}{% endif %}"
    "{% for m in messages %}{% if m.role == 'tool' %}{{ '<user>[' + m.content + ']<end>' }}"
    "{% else %}{{ '<' + m.role + '>' + m.content + '<end>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)
LIKE_LLAMA = NATIVE.replace("'<tool_call>'", "'ipython'")


def renderer(place: Path, template: str | None) -> Renderer:
    return Renderer(read(tiny_directory(place, string.printable, template=template)))


def test_a_template_that_knows_tools_tells_of_them_itself(tmp_path: Path) -> None:
    made = renderer(tmp_path / "m", NATIVE)
    offer = made.offer(SCHEMAS)
    assert (offer.syntax, offer.native) == (HERMES, True)
    asked = [Message("user", "3*4?")]
    prompt = made.prompt(asked, 1, offer)
    text = made.tokenizer.decode(prompt, special=True)
    assert '"name": "calculator"' in text
    assert text.endswith("<user>3*4?<end><assistant>")
    call = '<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>'
    said = [*asked, Message("assistant", call)]
    more, rewrote = made.extend(said, [Message("tool", "2")], True, 1, offer)
    assert not rewrote
    assert made.tokenizer.decode(more, special=True) == "<user>[2]<end><assistant>"
    assert renderer(tmp_path / "l", LIKE_LLAMA).offer(SCHEMAS).syntax == LLAMA


@pytest.mark.parametrize("template", [TEMPLATE, None])
def test_any_other_is_told_below_the_question(template: str | None, tmp_path: Path) -> None:
    made = renderer(tmp_path / "m", template)
    offer = made.offer(SCHEMAS[:1])
    assert (offer.syntax, offer.native) == (TAGS, False)
    asked = [Message("user", "3*4?")]
    text = made.tokenizer.decode(made.prompt(asked, 1, offer))
    assert text.startswith(
        "3*4?\n\nYou may use a tool: write the call and read its result.\n<calculator>expression<"
    )
    said = [*asked, Message("assistant", "<calculator>3*4</calculator>")]
    more, rewrote = made.extend(said, [Message("tool", "12"), Message("user", "Well?")], False, 1, offer)
    assert not rewrote
    assert made.tokenizer.decode(more).strip() == "Result: 12\nWell?"
    forced = made.offer(SCHEMAS, "hermes")
    assert (forced.syntax, forced.native) == (HERMES, False)
    assert "<tool_call>" in made.tokenizer.decode(made.prompt(asked, 1, forced))


# ---- what a call gives -------------------------------------------------------------------------------


def test_a_calculator_and_a_program(tmp_path: Path) -> None:
    both = kit("calculator,python")
    said = run(
        both,
        Call("calculator", {"expression": "(3 + 4) / 2 ="}),
        Call("python", {"code": "x = 3\nx * 4"}),
        Call("python", {"code": "print(1)\n1 / 0"}),
        Call("python", {"code": "while True: pass"}),
        Call("python", {"code": "def"}),
        Call("calculator", {"expression": "import os"}),
        Call("weather", {}),
        Call("calculator", {"expresion": "1"}),
    )
    assert said[:2] == ["3.5", "12"]
    assert all(text.startswith("Error: ") for text in said[2:])
    assert "ZeroDivisionError" in said[2]
    assert "took longer" in said[3]
    assert "no tool 'weather'; there are calculator, python" in said[6]


def test_files_are_the_episodes_own() -> None:
    files = kit("files")
    task = Task("x", Number("1"), meta={"files": {"a.txt": "given"}})
    one, other = files.session(task, 0), files.session(task, 1)
    assert one is not None and other is not None  # noqa: PT018
    assert run(files, Call("write_file", {"path": "b", "text": "mine"}), session=one) == [
        "b holds 4 characters now"
    ]
    assert run(files, Call("list_files", {}), session=one) == ['["a.txt", "b"]']
    assert (
        run(files, Call("list_files", {}), Call("read_file", {"path": "b"}), session=other)[0] == '["a.txt"]'
    )
    branch = one.fork()
    assert run(files, Call("read_file", {"path": "b"}), session=branch) == ["mine"]
    run(files, Call("write_file", {"path": "b", "text": "changed"}), session=branch)
    assert run(files, Call("read_file", {"path": "b"}), session=one) == ["mine"]


def test_a_database_is_copied_and_confined(tmp_path: Path) -> None:
    file = tmp_path / "pets.db"
    with sqlite3.connect(file) as database:
        database.execute("create table pets(name, age)")
        database.execute("insert into pets values ('Rex', 4), ('Tom', 9)")
    sql = kit(f"sql:{file}")
    session = sql.session(TASK, 0)
    assert session is not None
    assert "pets(name, age)" in session.tools["sql"].description
    said = run(
        sql,
        *(Call("sql", {"query": q}) for q in (
            "select name from pets where age > 5",
            "delete from pets",
            "select count(*) from pets",
            f"attach '{file}' as other",
            "with recursive n(i) as (select 1 union all select i + 1 from n) select count(*) from n",
            "select",
        )),
        session=session,
    )  # fmt: skip
    assert said[:3] == ["name\nTom", "done; rows changed: 2", "count(*)\n0"]
    assert "not authorized" in said[3]
    assert "took too long" in said[4]
    assert said[5].startswith("Error: ")
    assert run(sql, Call("sql", {"query": "select count(*) from pets"})) == ["count(*)\n2"]


def test_a_search_gives_what_fits(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Rome lies in Italy.\n\nOslo lies in Norway.\n\nParis is large.")
    assert run(kit(f"search:{tmp_path}"), Call("search", {"query": "Norway"})) == ["Oslo lies in Norway."]


class Counter:
    """Counts."""

    def __init__(self) -> None:
        self.n = 0

    def up(self, by: int) -> int:
        """Adds to it."""
        self.n += by
        return self.n


def crash(how: str) -> str:
    """Goes wrong."""
    if how == "exit":
        sys.exit(3)
    if how == "sleep":
        time.sleep(60)
    raise ValueError("no luck")


async def wait(seconds: float) -> str:
    """Waits."""
    await asyncio.sleep(seconds)
    return "waited"


def meeting(of: int) -> Any:
    barrier = asyncio.Barrier(of)

    async def meet() -> str:
        """Waits for all others."""
        await barrier.wait()
        return "met"

    return meet


def test_users_code_runs_beside_the_run_and_may_do_anything() -> None:
    with Pool(seconds=3, known=[Counter, crash]) as pool:
        mine = Kit([*(spec.users.of(t, pool) for t in (Counter, crash))])
        one, other = mine.session(TASK, 0), mine.session(TASK, 1)
        up = Call("up", {"by": 2})
        assert run(mine, up, up, session=one) == ["2", "4"]
        assert run(mine, up, session=other) == ["2"]
        said = run(mine, *(Call("crash", {"how": how}) for how in ("raise", "exit", "sleep")), session=other)
        assert "ValueError: no luck" in said[0]
        assert "exit" in said[1]
        assert "longer than its deadline" in said[2]
        assert run(mine, up, session=one) == ["6"]  # though its worker was lost
        at_once = Kit([spec.users.of(meeting(3), pool)], Budgets(seconds=20))
        assert run(at_once, *[Call("meet", {})] * 3) == ["met"] * 3


def test_a_server_of_tools() -> None:
    pytest.importorskip("mcp")
    server = f"mcp:{sys.executable} {Path(__file__).parent / 'tool_server.py'}"
    mine = kit(f'"{server}"')
    try:
        one, other = mine.session(TASK, 0), mine.session(TASK, 1)
        assert one is not None
        assert one.tools["count"].description == "Adds to a counter and gives its value."
        count = Call("count", {"by": 3})
        assert run(mine, count, count, session=one) == ["3", "6"]
        assert run(mine, count, Call("count", {"by": "x"}), session=other)[0] == "3"  # a server of its own
    finally:
        mine.close()
    with pytest.raises(UserError, match="gives no tools"):
        kit("mcp:false")


# ---- what it costs -----------------------------------------------------------------------------------


def test_calls_time_and_money_end() -> None:
    def dear(x: str) -> str:
        return x

    dear.price = 0.4  # type: ignore[attr-defined]
    with Pool() as pool:
        source = spec.users.of(dear, pool)
        call = Call("dear", {"x": "a"})
        few = Kit([source], Budgets(calls=2)).session(TASK, 0)
        assert (
            run(Kit(), call, call, call, session=few)[2]
            == "Error: no calls are left (2 an episode); answer now"
        )
        poor = Kit([source], Budgets(money=1.0)).session(TASK, 0)
        said = run(Kit(), call, call, call, session=poor)
        assert said[:2] == ["a", "a"]
        assert "dear costs 0.4" in said[2]
        assert poor is not None
        assert use_of([poor.record, []]) == {
            "calls": 1.5, "called": 0.5, "failed": 1 / 3, "unreadable": 0.0, "price": pytest.approx(0.4),
        }  # fmt: skip
        slow = Kit([spec.users.of(wait, pool)], Budgets(seconds=0.05)).session(TASK, 0)
        late, none = (run(Kit(), Call("wait", {"seconds": 5.0}), session=slow)[0] for _ in range(2))
        assert "longer than the time that was left" in late
        assert "no time is left" in none


# ---- the text that names them ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("calculater", "there is no tool 'calculater'"),
        ("search", "needs texts"),
        ("search:/nowhere", "cannot be read"),
        ("sql:/nowhere", "there is no '/nowhere'"),
        ("files:/nowhere", "is none"),
        ("./nowhere.py:f", "there is no file"),
        ("math:nothing", "there is no function or class 'nothing'"),
        ("given:gone", "give it again"),
        ('"calculator', "cannot be read"),
        ("calculator,calculator", "two tools are called 'calculator'"),
    ],
)  # fmt: skip
def test_what_names_no_tool_is_one_sentence(text: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        _ = Kit(spec.sources(text, Pool())).session(TASK, 0).tools  # type: ignore[union-attr]


def test_paths_are_read_alike_from_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert spec.absolute("python, search:docs/,./mine.py:f,mcp:run a") == (
        f"python,search:{tmp_path}/docs,{tmp_path}/mine.py:f,mcp:run a"
    )
    assert spec.parts(spec.text_of([add, "calculator"])) == ["given:add", "calculator"]
    assert spec.users_own("given:add") == [add]
