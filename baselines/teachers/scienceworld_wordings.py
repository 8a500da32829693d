"""Wordings of the reasoning on ScienceWorld, by part: goal, findings, choice. Invariant: data only; the fixed words of a
wording are true wherever its case holds, and every name in it is filled in by `scienceworld`. No goal and no finding speaks of
what is done next.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

GOALS = ("I want to {aim}.", "My task is to {aim}.", "I have to {aim}.", "I am here to {aim}.")

RECAPS: Sequence[tuple[str, tuple[str, ...]]] = (
    (r"^(?:the )?door is (now|already) open", ("The door is {0} open.", "Nothing bars the way: the door is {0} open.")),
    (r"^you move to the (.+?)\.", ("I am in the {0} now.", "I have reached the {0}.", "This is the {0}.")),
    (r"^you move the (.+?) to the inventory", ("I have the {0} now.", "I carry the {0} now.", "The {0} is taken.")),
    (r"you move the (.+?) to the (.+?)\.", ("I have moved the {0} to the {1}.", "The {0} went to the {1}.")),
    (r"^you pour the contents of the (.+?) into the (.+?)\.", ("I have emptied the {0} into the {1}.", "The pouring is done.")),
    (
        r"measures a temperature of (-?\d+) ",
        ("The thermometer says {0} degrees.", "It is at {0} degrees.", "I read {0} degrees."),
    ),
    (r"^the (.+?) is now (activated|deactivated|open)", ("The {0} is {1}.", "Good, the {0} is now {1}.")),
    (r"^the (.+?) is already (\w+)", ("The {0} is already {1}.", "The {0} was {1} before.")),
    (r"^the (.+?) appears broken", ("The {0} appears broken.", "The {0} does not work, it seems broken.")),
    (r"a (\w+(?: \w+)?) approximately (\d+)% down", ("The {0} is about {1}% down.", "At {1}% now.", "So far {1}% of the way.")),
    (r"a (\w+(?: \w+)?) at the bottom", ("The {0} has reached the bottom.", "The {0} is at the bottom of the plane.")),
    (r"time reads (\d+) ticks", ("The stopwatch reads {0} ticks.", "That took {0} ticks.")),
    (r"^(.+? mix to produce .+?)\.", ("It worked: {0}.", "I have learned that {0}.")),
    (r"^you focus on the (.+?)\.", ("The focus was on the {0}.", "I have focused on the {0}.")),
    (r"^you decide to wait", ("Some time has passed.", "I have waited.", "Time went by.")),
    (r"^ambiguous request", ("I am asked which one I mean.", "The request was ambiguous.")),
    (r"^(?:no known|unknown) action", ("That was not understood.", "The last words were not accepted.")),
    (r"^(.+ is now connected to .+)", ("Good: {0}.", "Done: {0}.")),
    (r"^you dig a hole", ("I have dug a hole, and the soil is nearby.", "Digging gave me soil.")),
    (r"^you can't", ("That was not possible.", "That did not work.")),
    (r"^the recipe reads:\s*(.+?)\.?$", ("The recipe says: {0}.", "I have read it: {0}.")),
    (r"called the (.+?)\.", ("I have looked around the {0}.", "Now I know what the {0} holds.", "I see the {0}.")),
    (r"^(?:a substance called )?((?:liquid|solid|gas) [\w ]+)$", ("I see {0}.", "It is {0} at the moment.")),
)
"""Pattern of an observation, and the wordings of its recap: the first that matches."""

PLACES = ("I am in the {here}.", "This is the {here}.", "I stand in the {here}.")
"""The finding where there is no other."""

FINDINGS: Mapping[str, tuple[str, ...]] = {
    "door back": ("I saw the {tool} in the {room}.", "I have seen the {tool} in the {room}."),
    "door seek": ("I have not seen the {seek} yet.", "Still no sign of the {seek}.", "I am looking for the {seek}."),
    "same": ("All choices read the same.", "The choices do not differ."),
}
"""What an earlier observation showed, for the cases that have such a finding; it follows the recap of the last one."""

UNSEEN = (
    "I have not seen the {x} yet, but it may be within reach.",
    "Nothing that I saw is called {x}, so this is a guess.",
    "I cannot tell yet whether the {x} is here. I try.",
)
"""The choice begins so where its object was not seen."""

BECOMES = ("It may have become {x} by now.", "By now I expect {x}.", "If it has changed, I find {x}.")
"""The same for a state of matter."""

DOOR = {
    "open": ("I open the door to the {room}.", "First I open its door.", "The door comes first: I open it."),
    "closed": ("Its door is closed, so I open it.", "The door to the {room} is closed. I open it.", "I open the closed door."),
    "go": ("I go there.", "I walk over to the {room}.", "So I go to the {room}."),
}
CHOICES: Mapping[str, tuple[str, ...]] = {
    "door back": ("I need it now.", "That is where I get it."),
    "door told": ("The task speaks of the {room}.", "I want to get to the {room}, which the task names."),
    "door again": ("I have been to the {room}. The way leads on through it.", "I know the {room}. My way goes through it."),
    "door seek": ("The {room} is worth a look.", "I have not been to the {room}.", "It may be reached through the {room}."),
    "door new": (
        "I have to look around more, and the {room} is new to me.",
        "I have not been to the {room} yet. It may help.",
        "The {room} may lead to what I need.",
    ),
    "close": ("I close the {a}, so that nothing passes while I work.", "It is better to work with the {a} closed."),
    "around": (
        "I do not know yet what the {here} holds. I look around for what may help.",
        "First I see what is in the {here}.",
        "To find what I need, I look at what is in the {here}.",
    ),
    "again": (
        "Things may have changed in the {here}. I look around again.",
        "Before I go on, I check how the {here} looks now.",
        "I look once more, to see where things stand in the {here}.",
    ),
    "open": (
        "Something useful may be inside the {a}, so I open it.",
        "I cannot see into the {a}. I open it and see whether it helps.",
        "The {a} must be open before I can use it, so I open it.",
    ),
    "take": ("I take the {a}: {role}.", "Here is the {a}. I pick it up, for {role}.", "The {a} is of use, because {role}."),
    "take unseen": (
        "I have not seen the {a} yet, but it may be here, and {role}. I try to take it.",
        "If the {a} is around, I want it: {role}. I try to pick it up.",
        "I try to pick up the {a}. I cannot tell yet whether it is here, but {role}.",
    ),
    "take again": ("I make sure that I still have the {a}.", "I take the {a} again, to be sure that I carry it."),
    "heat": ("For that it has to get hot. The {b} may do that.", "Heat is needed, so the {a} goes to the {b}."),
    "cold": ("For that it has to get cold. I put the {a} into the {b}.", "Cold is needed, and the {b} should give it."),
    "fill": ("I need water, so the {a} goes to the {b} to be filled.", "The {a} can be filled with water at the {b}."),
    "box": ("{why} So the {a} goes to the {b}.", "{why} I put the {a} where the task wants it, the {b}."),
    "plant": ("I plant it: the {a} goes to the {b}.", "The {b} still needs the {a}.", "Next the {b} gets the {a}."),
    "slide": ("I let the {a} slide down the {b} and watch how long it takes.", "Now the {a} goes on the {b}, to time it."),
    "gather": (
        "I bring things together: the {a} goes to the {b}.",
        "For that I need the {a} in the {b}.",
        "The {b} is a good place for the {a}, so I move it.",
    ),
    "water": ("Plants need water, so I pour it into the {b}.", "I water the {b}.", "The {b} should not run dry."),
    "pour": ("I empty the {a} into the {b}.", "The contents of the {a} belong in the {b} now."),
    "mix": ("What I need should be in the {a}. I mix it.", "Mixing the {a} may give what the task asks for."),
    "first": ("The task says to focus on the {a} first.", "Before anything else I focus on the {a}, as the task wants."),
    "next": ("Next the task wants me to focus on the {a}.", "The task names the {a} next. I focus on it."),
    "focus": ("{why} I focus on the {a}.", "{why} That makes the {a} my answer.", "The {a} is my choice. {why}"),
    "measure": (
        "I need to know how warm the {b} is, so I use the {a} on it.",
        "I have to watch the temperature of the {b}.",
        "What does the {a} say of the {b} now?",
    ),
    "use": ("I use the {a} on the {b} to get on with the task.", "So I use the {a} on the {b}."),
    "start clock": ("I start the {a} to time how long it takes.", "Time counts from now on, so I start the {a}."),
    "stop clock": ("It is over, so I stop the {a}.", "I stop the {a} to keep the time."),
    "read clock": ("I read the time on the {a}.", "How long did it take? The {a} tells me."),
    "on": ("The {a} must run, so I switch it on.", "I turn the {a} on and see what happens."),
    "off": ("The {a} has done its part, so I switch it off.", "I do not need the {a} for the moment."),
    "watch": (
        "I keep watching the {a} until it is over.",
        "It is still moving, so I look at the plane again.",
        "Not done yet. I check once more.",
        "Time runs on, and I look again.",
    ),
    "check": (
        "I look at the {a} to see in what state it is.",
        "Has the {a} changed? I examine it.",
        "I must know the state of the {a}.",
    ),
    "wire": ("The circuit needs a link between the {a} and the {b}.", "To close the circuit I connect the {a} to the {b}."),
    "read": ("The {a} may say what I need.", "I read the {a} to learn what is needed."),
    "drop": ("I put down the {a}, to work with it here.", "The {a} is needed here and not in my hands."),
    "wait": (
        "It takes time. I wait a little.",
        "Nothing else to do at the moment, so I wait a moment and see what changes.",
        "I give it a little more time.",
        "Changes need time. I wait a moment.",
    ),
    "wait long": ("It takes a good while. I wait.", "This is slow, so I wait for some time.", "I give it a while."),
    "same": ("So I take number {a}.", "Number {a} will do."),
    "unasked": ("If there is anything to choose, I take number {a}.", "Should a choice still be open, number {a} will do."),
    "choice": ("Number {a} fits what I meant.", "Of the choices I take number {a}."),
    "other": ("The next thing to try is: {act}.", "I see nothing better than to {act}."),
}
"""What is done, and why, by case."""
