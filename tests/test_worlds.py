"""The small worlds: rules, ends, feedback, experts, and that nothing a player says harms them."""

import pickle
import random

import numpy as np
import pytest
from typer.testing import CliRunner

import documents
from etude.cli import app
from etude.errors import UserError
from etude.evaluate.players import PLAYERS, measure, play
from etude.tasks import confinement, load, self_test
from etude.tasks.source import check_disjoint
from etude.tasks.worlds import sheet as sheets
from etude.tasks.worlds.bug_catalogue import BUGS
from etude.tasks.worlds.commands import command_of
from etude.tasks.worlds.encyclopedia import Encyclopedia
from etude.tasks.worlds.house import House, Place
from etude.tasks.worlds.play import Rules
from etude.tasks.worlds.shop import Article, Shop, Wish
from etude.types import Request

WORLDS = ("house", "shop", "encyclopedia", "sheet", "bugs")
RULES = Rules(6, feedback="full")

programs = pytest.mark.skipif(bool(confinement.refusal()), reason="nothing keeps programs in here")
FLAT = House(
    ("hall", "attic"),
    (("hall", "attic"),),
    (Place("table", "hall"), Place("safe", "hall", True, True), Place("box", "attic", True)),
    (("cup", "table"), ("key", "box")),
    "cup",
    "safe",
    Rules(20, feedback="full"),
)


@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize("world", WORLDS)
def test_every_level_can_be_won_and_is_not_won_by_nothing(world: str, level: int) -> None:
    if world == "bugs" and confinement.refusal():
        pytest.skip("nothing keeps programs in here")
    tasks = load(f"{world}:level={level}")
    for i in range(1 if world == "bugs" else 4):
        task = tasks.draw(Request(), i, 0)
        self_test(task)
        again = pickle.loads(pickle.dumps(task))
        assert again.key == task.key
        assert again.environment().solve() == task.reference.split("\n")
    check_disjoint([tasks.draw(Request(), i, 0) for i in range(8)], tasks.holdout(8, 0))


@pytest.mark.parametrize("world", WORLDS)
def test_levels_are_larger_each(world: str) -> None:
    source = load(world)
    assert source.levels(world) == (0.0, 1.0, 2.0)
    turns = [
        np.mean(
            [source.draw(Request(kind=world, difficulty=d), i, 0).environment.rules.turns for i in range(6)]
        )
        for d in (0.0, 1.0, 2.0)
    ]
    assert turns[0] < turns[1] < turns[2]


def test_a_house_by_hand() -> None:
    one = FLAT()
    assert one.observe() == (
        "You are in the hall. There is: table (cup); safe (locked). Doors lead to: attic. You hold: nothing.\n"
        "You can: go to attic; take cup"
    )
    assert one.act("Take the cup.")[0].startswith("You are in the hall. There is: table (empty)")
    assert one.act("open safe")[0].startswith("That cannot be done.")
    wins = [
        "go to attic",
        "open box",
        "take key",
        "go to hall",
        "unlock safe",
        "open safe",
        "put cup into the safe",
    ]
    for command in wins:
        assert not one.done
        said, verdict = one.act(f"I think about it.\n> {command}")
    assert (said, verdict.reward, verdict.correct) == ("You have done it.", 1.0, True)
    with pytest.raises(RuntimeError, match="over"):
        one.act("look")
    assert FLAT().solve() == ["take cup", *wins[:-1], "put cup in safe"]


def test_turns_milestones_and_feedback() -> None:
    def end(**rules):
        attempt = House(**{**vars(FLAT), "rules": Rules(2, **rules)})()
        attempt.act("take cup")
        return attempt.act("sing")

    said, verdict = end(feedback="hint")
    assert said == "That cannot be done. You have no turns left."
    assert verdict.feedback == "You did not manage it. What was missing: the cup in the safe."
    assert (verdict.reward, verdict.correct) == (0.0, False)
    assert end(partial=True)[1].reward == 0.5
    assert end(feedback="none")[1].feedback == ""
    assert end(feedback="unary")[1].feedback == "You did not manage it."
    silent = House(**{**vars(FLAT), "rules": Rules(2, listed=False)})()
    assert "You can" not in silent.observe()


def test_the_expert_of_a_house_knows_no_more_than_it_saw() -> None:
    """Things that were not seen yet may lie elsewhere, and the expert does the same until then."""
    for seed in range(5):
        task = load("house:level=2").draw(Request(), seed, 0)
        one, made = task.environment(), task.environment
        hidden = [p.name for p in made.places if p.shut or p.room != made.rooms[0]]
        moved = tuple((t, hidden[0] if p in hidden and p != made.target else p) for t, p in made.things)
        other = House(**{**vars(made), "things": moved})()
        assert one.expert() == other.expert()


def test_a_shop_by_hand() -> None:
    articles = (
        Article("hat", "red", "wool", 30, ("small",)),
        Article("hat", "red", "silk", 20, ("small", "large")),
        Article("coat", "blue", "wool", 20, ("large",)),
    )
    shop = Shop(articles, Wish("hat", "red", "silk", 25, "large"), Rules(9, partial=True, feedback="hint"))
    assert shop.search("a red coat") == [0, 1, 2]
    one = shop()
    assert "Nothing was found" in one.act("search trousers")[0]
    assert "1. red hat" in one.act("search hat")[0]
    assert "Material: wool" in one.act("open 1")[0]
    assert one.act("open 2")[0].startswith("That cannot be done")
    _, verdict = one.act("buy")  # name and colour are right; material, price and size are not
    assert (verdict.reward, verdict.correct) == (0.4, False)
    assert verdict.feedback == "You did not buy what was wanted. What was missing: silk."
    assert shop().solve() == ["search red hat", "open 1", "back", "open 2", "choose large", "buy"]


def test_an_encyclopedia_by_hand() -> None:
    pages = (("Ann", "Ann was born in Rome."), ("Rome", "Rome is a city in Italia."))
    book = Encyclopedia(pages, "In which country was Ann born?", ("Ann", "Rome"), "Italia", RULES)
    one = book()
    assert one.act("search rome")[0].startswith("Found: Rome; Ann.")
    assert one.act("read Italia")[0].startswith("There is no such page.")
    _, verdict = one.act("answer Rome")
    assert not verdict.correct
    assert "A way that works: search Ann; read Ann; read Rome; answer Italia." in verdict.feedback
    assert book().act("answer italia")[1].correct, "who knows it need not look it up"


def test_a_sheet_by_hand() -> None:
    tables = (("orders", ("item", "number"), (("pen", 2), ("pen", 3), ("cup", 1))),)
    plan = sheets.Sheet(
        tables, "How many pens?", "SELECT SUM(number) FROM orders WHERE item = 'pen'", 5, RULES
    )
    one = plan()
    assert one.act("SELECT item FROM orders WHERE number > 1")[0].startswith("item\npen\npen\n")
    assert "no such column: colour" in one.act("select colour from orders")[0]
    assert one.act("answer 5.0")[1].correct
    assert not plan().act("answer 4")[1].correct
    assert plan().solve() == [plan.query, "answer 5"]


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT COUNT(*) FROM n",
            "interrupted",
        ),
        ("SELECT LENGTH(HEX(ZEROBLOB(1000000000)))", "too big"),
        ("SELECT load_extension('/tmp/x.so')", "not authorized"),
        ("SELECT 1; DROP TABLE orders", "one statement"),
        ("WITH x AS (SELECT 1) DELETE FROM orders", "not authorized"),
        ("SELECT * FROM pragma_table_info('orders')", "not authorized"),
    ],
)
def test_no_query_harms_the_sheet(said: str, why: str) -> None:
    one = load("sheet:level=0").draw(Request(), 0, 0).environment()
    heard = one.act(said)[0]
    assert heard.startswith("Error: "), heard
    assert why in heard
    assert one.act("SELECT COUNT(*) FROM orders")[0].startswith("COUNT(*)\n12")


@programs
def test_a_repository_is_repaired_and_hidden_tests_judge_it() -> None:
    task = load("bugs:level=1,feedback=hint").draw(Request(), 1, 0)
    assert task.environment.runs_programs
    ((name, number, line),) = task.environment.repairs
    one = task.environment()
    assert one.observe().startswith("Files: ")
    assert "it should return" in one.act("test")[0]
    assert f"{number}: " in one.act(f"read {name}.py")[0]
    broken = task.environment()
    assert "return (" in broken.act(f"edit {name}.py {number}: return (")[0]
    assert "cannot be loaded" in broken.act("test")[0]
    assert one.act(f"edit {name}.py 99: pass")[0].startswith("There is no such line.")
    one.act(f"edit {name}.py {number}: {line}")
    assert one.act("test")[0].startswith("All tests pass.")
    said, verdict = one.act("submit")
    assert verdict.correct, said
    _, verdict = task.environment().act("submit")
    assert not verdict.correct
    assert verdict.feedback.endswith(f"What was missing: {name}.py read.")


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.names[0][1])
def test_each_bug_is_one(bug) -> None:
    """The wrong line gives another result, or an error, for a good share of arguments, and comes to an end."""

    def made(line: str):
        place: dict = {}
        lines = [x.replace(bug.right, line) if x.strip() == bug.right else x for x in bug.lines]
        exec("\n".join(x.format(f="f", k=3) for x in lines), place)
        return place["f"]

    def result(function, arguments):
        try:
            return function(*arguments)
        except ZeroDivisionError:
            return "error"

    draw = random.Random(0)
    calls = [bug.arguments(draw) for _ in range(200)]
    good, bad = made(bug.right), made(bug.wrong)
    assert sum(result(good, a) != result(bad, a) for a in calls) > 20


@pytest.mark.parametrize("world", WORLDS[:4])
def test_scripted_players(world: str) -> None:
    tasks = load(f"{world}:level=0")
    assert measure("expert", tasks, 10).solved.mean == 1
    assert measure("random", tasks, 20).solved.mean < 0.6
    assert play("random", tasks.draw(Request(), 0, 0)) == play("random", tasks.draw(Request(), 0, 0))


def test_players_of_what_has_no_actions() -> None:
    with pytest.raises(UserError, match=r"no actions\(\), which 'random' needs"):
        play("random", load("number_guess").draw(Request(), 0, 0))
    with pytest.raises(UserError, match="no environment"):
        play("random", load("chain_sum").draw(Request(), 0, 0))
    with pytest.raises(UserError, match="no scripted player 'gredy'; did you mean"):
        play("gredy", load("house").draw(Request(), 0, 0))
    assert set(PLAYERS) == {"random", "greedy", "expert"}


def test_players_on_the_command_line() -> None:
    found = CliRunner().invoke(app, ["play", "expert,random", "-t", "house:level=1", "--games", "4"])
    assert found.exit_code == 0, found.output
    assert found.output.splitlines()[1].startswith("expert  100.0 % [")


def test_a_command_is_found_in_a_reply() -> None:
    assert command_of("I look around.\n> Open the   box.") == "Open the box"
    assert command_of('Action: "take cup"') == "take cup"
    assert command_of("<answer>take cup</answer> and so on") == "take cup"
    assert command_of('SELECT a FROM t WHERE b = ""', code=True) == 'SELECT a FROM t WHERE b = ""'


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ("house:rooms=9", "rooms=9 is out of range"),
        ("shop:articles=2,alike=3", "alike=3 is out of range; it must be less than articles=2"),
        ("bugs:files=1,bugs=2", "bugs=2 is out of range"),
        ("sheet:question=4", "question=4 is out of range"),
        ("encyclopedia:level=3", "no difficulty 3"),
    ],
)
def test_settings_out_of_range(spec: str, why: str) -> None:
    with pytest.raises(UserError, match=why):
        load(spec)


def test_the_players_of_the_page_are_as_it_says() -> None:
    page = (documents.ROOT / "docs/environments.md").read_text()
    row = next(line for line in page.splitlines() if line.startswith("| `shop` | 0 |"))
    for player, cell in (("greedy", row.split("|")[4]), ("expert", row.split("|")[5])):
        solved = measure(player, load("shop:level=0"), 100).solved
        assert cell.strip() == f"{100 * solved.mean:.0f} [{100 * solved.low:.0f}, {100 * solved.high:.0f}]"


def test_the_environment_of_the_page_is_one() -> None:
    (block,) = documents.fenced("docs/environments.md", "python")
    place: dict = {}
    exec(block, place)
    tasks = place["tasks"]
    task = tasks.draw(Request(), 0, 0)
    self_test(task)
    verdict, replies = play("greedy", task)
    assert verdict.correct, "27 codes, each tried once"
    assert replies[-1] == task.environment.code
    assert len(block[block.index("class Safe") :].split("codes =")[0].strip().splitlines()) <= 30
