"""Ground truths, damaged: what models do wrong, and what does no harm."""

from __future__ import annotations

import ast
import random
from collections.abc import Callable

Turns = list[list[str]]


def corrupted(truth: Turns, rng: random.Random) -> list[str]:
    """The responses of a conversation: the ground truth with up to two damages, cut into responses at random."""
    turns = [list(turn) for turn in truth]
    for _ in range(rng.choice((0, 1, 1, 2))):
        rng.choice(_DAMAGES)(turns, rng)
    responses = []
    for turn in turns:
        done = 0
        while done < len(turn):
            size = rng.choice((1, len(turn)))
            responses.append(f"[{', '.join(turn[done : done + size])}]")
            done += size
        if rng.random() < 0.97:  # Else the turn goes on into the next.
            responses.append(rng.choice(("[]", "", "All done.", "I need more information: which file?", "[broken(")))
    return responses


def damaged_call(text: str, rng: random.Random) -> str:
    """A call with one thing wrong."""
    call = ast.parse(text, mode="eval").body
    assert isinstance(call, ast.Call)
    choice = rng.choice(("value", "value", "leave away", "add", "rename", "positional", "nested", "type"))
    if choice == "rename" and isinstance(call.func, ast.Name):
        call.func.id += "x"
    elif choice == "add":
        call.keywords.append(ast.keyword("surplus", ast.Constant(1)))
    elif not call.keywords:
        call.keywords.append(ast.keyword("a", ast.Constant(True)))
    elif choice == "leave away":
        call.keywords.pop(rng.randrange(len(call.keywords)))
    elif choice == "positional":
        call.args.append(call.keywords.pop(0).value)
    elif choice == "nested":
        call.keywords[0].value = ast.parse("pwd()", mode="eval").body
    elif choice == "type":
        call.keywords[0].value = ast.Constant(rng.choice((None, 3, 2.5, "text", True)))
    else:
        keyword = rng.choice(call.keywords)
        keyword.value = _changed(keyword.value)
    return ast.unparse(call)


def _changed(value: ast.expr) -> ast.expr:
    if not isinstance(value, ast.Constant):
        return ast.List([], ast.Load())
    match value.value:
        case bool():
            return ast.Constant(not value.value)
        case str():
            return ast.Constant(value.value + "x")
        case int() | float():
            return ast.Constant(value.value + 1)
    return ast.Constant("something")


def _some_turn(turns: Turns, rng: random.Random) -> list[str]:
    return rng.choice([turn for turn in turns if turn] or turns)


def _drop(turns: Turns, rng: random.Random) -> None:
    turn = _some_turn(turns, rng)
    if turn:
        turn.pop(rng.randrange(len(turn)))


def _double(turns: Turns, rng: random.Random) -> None:
    turn = _some_turn(turns, rng)
    if turn:
        turn.insert(rng.randrange(len(turn) + 1), rng.choice(turn))


def _swap(turns: Turns, rng: random.Random) -> None:
    rng.shuffle(_some_turn(turns, rng))


def _damage(turns: Turns, rng: random.Random) -> None:
    turn = _some_turn(turns, rng)
    if turn:
        place = rng.randrange(len(turn))
        turn[place] = damaged_call(turn[place], rng)


def _move(turns: Turns, rng: random.Random) -> None:
    turn = _some_turn(turns, rng)
    if turn:
        rng.choice(turns).append(turn.pop(0))


def _invent(turns: Turns, rng: random.Random) -> None:
    rng.choice(turns).insert(0, rng.choice(("pwd()", "ls(a=True)", "no_such_function(a=1)", "get_stock_info(symbol='X')")))


def _many(turns: Turns, rng: random.Random) -> None:
    rng.choice(turns).extend(["pwd()"] * rng.choice((18, 20, 21, 25)))


def _merge(turns: Turns, rng: random.Random) -> None:
    place = rng.randrange(len(turns))
    if place + 1 < len(turns):
        turns[place] += turns[place + 1]
        turns[place + 1] = []


_DAMAGES: tuple[Callable[[Turns, random.Random], None], ...] = (
    _drop, _double, _swap, _damage, _damage, _damage, _move, _invent, _many, _merge,
)  # fmt: skip
