"""Wordings of the household expert's reasoning. Invariant: data only; one list, and each level of names is a prefix of the
next one's sentences.

A wording has three parts: the goal (what is sought or held, and what it is needed for), the findings (what the episode has
shown: true facts), and the choice (what is done, with its verb or its target).
"""

from __future__ import annotations

from cotbench.baselines.teachers.wording import Wording

FIRST = (
    Wording("I need a {seeks}.", "I have seen nothing yet.", "I begin with {target}."),
    Wording("I look for a {seeks}.", "I have seen nothing yet.", "So I go to {target} first."),
    Wording("I want a {seeks}.", "I have looked nowhere yet.", "I start at {target}."),
)
NOT_HERE = (
    Wording("I need a {seeks}.", "There is none {on_at} {at}.", "Next I check {target}."),
    Wording("I look for a {seeks}.", "I see none {on_at} {at}.", "So I try {target}."),
    Wording("I want a {seeks}.", "It is not {on_at} {at}.", "I go on to {target}."),
)
SEARCH = (
    Wording("I need a {seeks}.", "I have not found it.", "Next I check {target}."),
    Wording("I look for a {seeks}.", "I know of none to take.", "I go on to {target}."),
    Wording("I want a {seeks}.", "I see none to take so far.", "So I try {target}."),
)
OPEN_TO_FIND = (
    Wording("I need a {seeks}.", "The {at} is closed.", "I open it."),
    Wording("I look for a {seeks}.", "I cannot see into {at}.", "So I open it."),
    Wording("I want a {seeks}.", "It may be inside {at}.", "I open it."),
)
EXAMINE_TO_FIND = (
    Wording("I need a {seeks}.", "I have not found it.", "I look closely at {at}."),
    Wording("I look for a {seeks}.", "I know of none to take.", "I examine {at}."),
)
TAKE = (
    Wording("I need a {thing}.", "I see {target} {on} {at}.", "I take it."),
    Wording("I look for a {thing}.", "Here is {target} {on} {at}.", "So I take it."),
    Wording("I want a {thing}.", "There is {target} {on} {at}.", "I take it."),
)
FETCH = (
    Wording("I need a {thing}.", "I saw {target} {on} {where}.", "I go there."),
    Wording("I look for a {thing}.", "I remember {target} {on} {where}.", "So I go there."),
    Wording("I want a {thing}.", "There was {target} {on} {where}.", "I go to {where}."),
)
OPEN_TO_TAKE = (
    Wording("I need a {thing}.", "I saw {target} in {at}, which is closed.", "I open it."),
    Wording("I want a {thing}.", "It is in {at}.", "I open it."),
)
TREAT_GO = (
    Wording("I have {holds}. It must be {done}.", "", "I go to {target}."),
    Wording("I hold {holds}, which is not {done} yet.", "", "I go to {target} to {kind} it."),
    Wording("I carry {holds}. The task wants it {done}.", "", "I {kind} it with {target}, so I go there."),
)
TREAT = (
    Wording("I have {holds}. It must be {done}.", "This is {target}.", "I {kind} it with {target}."),
    Wording("I hold {holds}, which is not {done} yet.", "This is {target}.", "So I {kind} it."),
    Wording("I carry {holds}. The task wants it {done}.", "I am at {target}.", "Here I {kind} it."),
)
BRING_GO = (
    Wording("I have {holds}. It goes to a {place}.", "{treated}", "I go to {target}."),
    Wording("I hold {holds} for a {place}.", "{treated}", "I bring it to {target}."),
    Wording("I carry {holds}. A {place} is where it belongs.", "{treated}", "So I go to {target}."),
)
BRING_OPEN = (
    Wording("I have {holds}. It goes to a {place}.", "{treated} The {at} is closed.", "I open it."),
    Wording("I hold {holds} for a {place}.", "{treated} The {at} is closed.", "To put it in, I open {at}."),
)
BRING = (
    Wording("I have {holds}. It goes to a {place}.", "{treated} This is {at}.", "I put it {on} {at}."),
    Wording("I hold {holds} for a {place}.", "{treated} This is {at}.", "So I put it here."),
    Wording("I carry {holds}. A {place} is where it belongs.", "{treated} I am at {at}.", "I move it to {at}."),
)
LIGHT_GO = (
    Wording("I have {holds}. I need a {place}.", "I saw {target} {on} {where}.", "So I go there."),
    Wording("I hold {holds}. I need a {place}.", "I remember {target} {on} {where}.", "I go there."),
    Wording("I carry {holds}. I want light from a {place}.", "There was {target} {on} {where}.", "I go to {where}."),
)
LIGHT = (
    Wording("I have {holds}. I need a {place}.", "Here is {target}.", "I turn it on."),
    Wording("I hold {holds}. I need a {place}.", "I see {target}.", "So I use it."),
    Wording("I carry {holds}. I want light from a {place}.", "I see {target}.", "I use {target} to look at it."),
)
PUT_AWAY_GO = (
    Wording("I hold {holds}. I need a {thing} instead.", "", "I bring it to {where}."),
    Wording("I carry {holds}, which the task does not ask for.", "", "I put it away at {where}."),
)
PUT_AWAY = (
    Wording("I hold {holds}. I need a {thing} instead.", "", "I leave it at {at}."),
    Wording("I carry {holds}, which the task does not ask for.", "", "I put it down here."),
)
AGAIN = (
    Wording("I need a {seeks}.", "I have looked everywhere.", "I go back to {target}."),
    Wording("I look for a {seeks}.", "I have seen all places.", "So I try {target} once more."),
)
PLAIN = (
    Wording("{aim}", "", "I go on. I {action}."),
    Wording("{aim}", "", "The next step is to {action}."),
)
REFUSED = (
    Wording("", "That did nothing."),
    Wording("", "Nothing happened."),
    Wording("", "That was not possible."),
)
"""Stands before a wording, where the last action changed nothing: a finding without a goal of its own."""

WORDINGS = (
    *(FIRST, NOT_HERE, SEARCH, AGAIN, OPEN_TO_FIND, EXAMINE_TO_FIND),
    *(TAKE, FETCH, OPEN_TO_TAKE, TREAT_GO, TREAT, LIGHT_GO, LIGHT),
    *(BRING_GO, BRING_OPEN, BRING, PUT_AWAY_GO, PUT_AWAY, PLAIN, REFUSED),
)
"""All wordings."""
