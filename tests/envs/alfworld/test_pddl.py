"""The game format: what is refused is refused in one line that says where, and what is read is read as upstream reads it."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cotbench.envs.alfworld.game import Game
from cotbench.envs.alfworld.native_engine import NativeEngine
from cotbench.envs.alfworld.pddl import sexpr
from cotbench.envs.alfworld.pddl.domain import compile_domain
from cotbench.envs.alfworld.pddl.expressions import Entity, compile_expression
from cotbench.envs.alfworld.pddl.grammar import Symbol, compile_grammar, parse_query, parse_text
from cotbench.envs.alfworld.pddl.types import Types
from cotbench.errors import EngineError, GameFileError
from tests.conftest import needs_stock_engine
from tests.envs.garden import DOMAIN, GARDEN, GRAMMAR, PROBLEM


def _garden(**parts: tuple[str, str]) -> Game:
    """The garden with one piece of its domain, problem or grammar replaced."""
    texts = {"domain": DOMAIN, "problem": PROBLEM, "grammar": GRAMMAR}
    for part, (old, new) in parts.items():
        assert old in texts[part], old
        texts[part] = texts[part].replace(old, new, 1)
    return Game("a/task", texts["domain"], texts["problem"], texts["grammar"], ())


BAD = [
    ("domain", "(:types place", "(:types (either place", "domain, line 2: ( is never closed"),
    ("domain", "(:functions (total-cost) - number)\n", ")", r"domain, line \d+: unmatched \)|one \(define …\) expected"),
    ("domain", ":adl :typing", ":adl :durative-actions", "domain, line 3: unsupported PDDL feature: :durative-actions"),
    ("domain", "(:action walk", "(:durative-action walk", "domain, line 12: unsupported PDDL feature: (:durative-action …)"),
    ("domain", "?p - place", "?p - (either bed shed)", "domain, line 6: unsupported PDDL feature: type (either …)"),
    (
        "domain",
        ":precondition (has ?t)",
        ":precondition (>= (total-cost) 3)",
        "unsupported PDDL feature or undeclared predicate: (>= …)",
    ),
    (
        "domain",
        "(increase (total-cost) 1)",
        "(increase (fuel) 1)",
        "line 15: unsupported PDDL feature: (increase …) of anything but",
    ),
    ("domain", "(here ?from)", "(here ?elsewhere)", "unknown variable"),
    ("domain", "(here ?origin) (or", "(here ?origin ?to) (or", "line 14: 'here' takes 1 arguments, not 2"),
    ("domain", "(forall (?f - flower) (bloom ?f))", "(happy)", "unsupported PDDL feature: recursive derived predicate 'happy'"),
    (
        "domain",
        ":effect (seen can_bar_1)",
        ":observe (seen can_bar_1)",
        "unsupported PDDL feature: :observe in action 'ponder'",
    ),
    ("domain", ":effect (seen can_bar_1)", ":effect (happy)", "action 'ponder' changes the derived predicate 'happy'"),
    (
        "domain",
        "(when (switched ?t) (not (switched ?t)))",
        "(when (switched ?t) (when (has ?t) (has ?t)))",
        "(when …) inside (when …)",
    ),
    ("problem", "(:domain garden)", "(:domain alfred)", "problem, line 2: a problem of another domain than 'garden'"),
    ("problem", "rake_bar_1 - tool", "rake_bar_1 - spade", "is of the undeclared type 'spade'"),
    ("problem", "rake_bar_1 - tool", "rake_bar_1 rake_bar_1 - tool", "'rake_bar_1' is declared twice"),
    ("problem", "(here north_bar_1)", "(here west_bar_1)", "problem, line 4: unknown object 'west_bar_1'"),
    ("problem", "(here north_bar_1)", "(hear north_bar_1)", "undeclared predicate: (hear …)"),
    ("problem", "(here north_bar_1)", "(here)", "'here' takes 1 arguments, not 0"),
    ("problem", "(dry oak_bar_1)) (forall", "(dry oakum)) (forall", "unknown object 'oakum'"),
    ("problem", "(:metric minimize", "(:constraints minimize", "unsupported PDDL feature: (:constraints …)"),
    ("problem", "(:init", "(:inits", "unsupported PDDL feature: (:inits …)"),
    ("grammar", "action walk {", "action stroll {", "no wording for the action 'walk' of the domain"),
    ("grammar", '"list_empty": [', '"list_empty": [,', "a grammar block that ends here is not JSON"),
    ("grammar", '[{"rhs": "nothing"}]', '[{"rsh": "nothing"}]', "rule 'list_empty' is not a list"),
    ("grammar", 'template :: "flip {t}";', 'template :: "flip {t}"', "grammar, line 42: ';' expected"),
    ("grammar", 'feedback :: "Click. #switches#";', "", "action 'flip' lacks a template or a feedback"),
    ("grammar", "action flip", "activity flip", "'action' or 'grammar' expected, not 'activity'"),
]


@pytest.mark.parametrize(
    ("part", "old", "new", "message"), BAD, ids=[f"{part}-{number}" for number, (part, *_) in enumerate(BAD)]
)
def test_what_cannot_be_read_is_said_in_one_line(part: str, old: str, new: str, message: str) -> None:
    old = old.replace("?from", "?origin")
    with pytest.raises(GameFileError) as caught:
        NativeEngine(_garden(**{part: (old, new)}))
    text = str(caught.value)
    assert text.startswith("cannot load the game of a/task: ")
    assert "\n" not in text
    assert message in text or re.search(message, text), text


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("#look#\\n", "#stare#\\n", "there is no rule 'stare'"),
        ('"where": [{"rhs": "You', '"where": [{"condition": "open(s:shed)", "rhs": "You', ""),
        ("{p.name | here(p:place)}", "{p.name | here(p:planet)}", "unknown type 'planet'"),
        ("{p.name | here(p:place)}", "{p.name | here p}", "is not a query"),
        ("{p.name | here(p:place)}", "{q.name | here(p:place)}", "'q' stands for nothing here"),
        ("{p.name | here(p:place)}", "{().__class__ | here(p:place)}", "unsupported feature"),
        ("{p.name | here(p:place)}", "{p.__class__ | here(p:place)}", "unsupported feature Attribute"),
        ("{p.name | here(p:place)}", "{open('x') | here(p:place)}", "unsupported feature Call"),
        ("{p.name | here(p:place)}", "{p.name + p.noun | here(p:place)}", "rule 'where': + of 'north 1' and 'None'"),
        ("{p.name | here(p:place)}", "#look#", "a rule of the grammar leads back to itself"),
    ],
)
def test_a_text_that_cannot_be_said_is_an_error_of_the_game(old: str, new: str, message: str) -> None:
    engine = NativeEngine(_garden(grammar=(old, new)))
    if message:
        with pytest.raises(EngineError, match=re.escape(message)) as caught:
            engine.reset()
        assert "a/task" in str(caught.value) and "\n" not in str(caught.value)
    else:
        assert "unused" in engine.reset(), "the first case that applies speaks"


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(["domain", "problem", "grammar"]),
    st.integers(0, 5000),
    st.integers(1, 60),
    st.text("(){}[]#\"'|;: ?-=x1\n", max_size=8),
)
def test_a_damaged_game_is_an_error_of_its_own_and_nothing_else(part: str, start: int, length: int, junk: str) -> None:
    texts = {"domain": DOMAIN, "problem": PROBLEM, "grammar": GRAMMAR}
    start %= len(texts[part])
    texts[part] = texts[part][:start] + junk + texts[part][start + length :]
    try:
        engine = NativeEngine(Game("a/task", texts["domain"], texts["problem"], texts["grammar"], ()))
        engine.reset()
        for command in engine.admissible()[:5]:
            engine.step(command)
    except (GameFileError, EngineError) as error:
        assert "\n" not in str(error) or "\n" in junk


def test_a_hundred_thousand_brackets() -> None:
    deep = "(and " * 100_000 + ")" * 100_000
    for game in (_garden(domain=("(has ?t)\n", deep)), Game("a/task", "(" * 100_000, PROBLEM, GRAMMAR, ())):
        with pytest.raises(GameFileError, match="a/task"):
            NativeEngine(game)


def test_lines_are_counted_past_comments() -> None:
    node = sexpr.read("; (one\n(define ; two )\n\n (inner\n) )", "text")
    assert (node.line, node[1].line) == (2, 4)


def test_a_domain_is_compiled_once_and_a_sentence_does_not_compile_a_grammar_anew() -> None:
    assert compile_domain(DOMAIN) is compile_domain(DOMAIN[:5] + DOMAIN[5:])
    one, other = compile_grammar(GRAMMAR), compile_grammar(GRAMMAR.replace("make it bloom", "water the rose"))
    assert one.rules["intro"] != other.rules["intro"]
    assert one.rules["look"][0] is other.rules["look"][0]


TEXTS = [
    "",
    " ",
    "\n x",
    "\t\ty",
    "a  b ",
    "{o.name}",
    "{ o.name }x",
    "#a#\n\n#b#",
    "#x #",
    "a\\nb",
    "{a | }",
    "{#r(o)# | p(o:t)}",
]
TEXTS += ["[{a + ' ' + b | p(a:t, b:t) & q(a:t)}].", "a;b", "a|b", "say <b>", '"quoted" end', "x {a|b} c} d", "//c\nb", "a //c"]
TEXTS += ["{a[0]}", "5 # 6", "[{a}] , [{b}]"]


@needs_stock_engine
@pytest.mark.parametrize("text", TEXTS)
def test_texts_are_read_as_upstream_reads_them(text: str) -> None:
    from textworld.envs.pddl import textgen

    def flat(symbol: object) -> Symbol:
        match symbol:
            case textgen.ListSymbol():
                inner = flat(symbol.symbol)
                return Symbol(inner.kind, inner.text, inner.given, True)
            case textgen.ConditionalSymbol():
                inner = flat(symbol.expression)
                return Symbol(inner.kind, inner.text, symbol.given or "")
            case textgen.EvalSymbol():
                return Symbol("value", symbol.expression)
            case textgen.NonterminalSymbol():
                return Symbol("rule", symbol.symbol)
        return Symbol("literal", str(symbol))

    theirs = [flat(symbol) for symbol in textgen._parse_and_convert(text, rule_name="symbols")]
    assert [symbol for symbol in theirs if symbol != Symbol("literal", "")] == list(parse_text(text))


@needs_stock_engine
def test_subtypes_are_tried_in_upstreams_order() -> None:
    from textworld.logic import Type, TypeHierarchy

    declared = [("c", "b"), ("b", "a"), ("d", "a"), ("a", "object"), ("e", "object")]
    theirs, ours = TypeHierarchy(), Types(declared)
    ancestors = {
        "object": [],
        "a": ["object"],
        "b": ["a", "object"],
        "c": ["b", "a", "object"],
        "d": ["a", "object"],
        "e": ["object"],
    }
    for name in ("object", "c", "b", "d", "a", "e"):
        theirs.add(Type(name, ancestors[name]))
    for names in (("object",), ("a",), ("c",), ("a", "b"), ("object", "object")):
        expected = theirs.multi_subtypes([theirs.get(name) for name in names])
        assert [tuple(kind.name for kind in kinds) for kinds in expected] == list(ours.combinations(names))


def test_values_and_queries() -> None:
    thing = {"o": Entity("mug_bar_1", "object", "mug 1"), "r": Entity("shelf", "receptacle", "")}
    assert compile_expression("o.indefinite + ' ' + o.name ")(thing) == "a mug 1"
    assert compile_expression("r.name or r.id")(thing) == "shelf"
    assert compile_expression("r.name and r.id")(thing) == ""
    assert str(compile_expression("o")(thing)) == "mug 1"
    assert compile_expression("o.desc")(thing) is None
    (first, second) = parse_query(" p( a:t , b' ) & !q( c ) ")
    assert (first.predicate, first.placeholders) == ("p", (("a", "t"), ("b'", "b")))
    assert (second.predicate, second.placeholders) == ("not_q", (("c", "c"),))
    assert GARDEN.goal == "make it bloom"
