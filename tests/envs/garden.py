# ruff: noqa: E501
"""A second text game in the format: nothing in it is ALFWorld's. A gardener walks between beds and a shed, waters what is dry,
plants and digs; it uses what the alfred domain leaves aside: subtypes, constants, (forall …) and (when …) in effects, imply,
equality, derived predicates, negations in queries, and rules with several placeholders of one type.
"""

from cotbench.envs.alfworld.game import Game

DOMAIN = """
(define (domain garden)
 (:requirements :adl :typing :derived-predicates :action-costs)
 (:types place thing - object bed shed - place tool plant - thing flower tree - plant)
 (:constants theshed_bar_1 - shed can_bar_1 - tool)
 (:predicates (here ?p - place) (at ?t - thing ?p - place) (has ?t - tool) (dry ?f - plant) (wet ?f - plant)
   (next ?a ?b - place) (open ?s - shed) (bloom ?f - flower) (tall ?t - tree) (near ?t - thing) (happy) (seen ?x - object)
   (switched ?t - tool) (level ?p - place ?l - object) (mute ?x - object))
 (:functions (total-cost) - number)
 (:derived (near ?t - thing) (exists (?p - place) (and (here ?p) (at ?t ?p))))
 (:derived (happy) (forall (?f - flower) (bloom ?f)))
 (:action walk
   :parameters (?origin - place ?to - place)
   :precondition (and (here ?origin) (or (next ?origin ?to) (next ?to ?origin)) (not (= ?to theshed_bar_1)))
   :effect (and (not (here ?origin)) (here ?to) (seen ?to) (increase (total-cost) 1)))
 (:action enter
   :parameters (?origin - place ?to - shed)
   :precondition (and (here ?origin) (imply (not (open ?to)) (has can_bar_1)) (next ?origin ?to))
   :effect (and (here ?to) (not (here ?origin)) (open ?to)))
 (:action stay
   :parameters (?origin - place ?to - place)
   :precondition (and (here ?origin) (next ?to ?to))
   :effect (and (not (here ?origin)) (here ?to)))
 (:action grab
   :parameters (?t - tool ?p - place)
   :precondition (and (near ?t) (at ?t ?p) (here ?p) (not (exists (?o - tool) (has ?o))))
   :effect (and (has ?t) (not (at ?t ?p)) (not (mute ?t))))
 (:action drop
   :parameters (?t - tool ?p - place)
   :precondition (and (has ?t) (here ?p))
   :effect (and (not (has ?t)) (at ?t ?p)))
 (:action water
   :parameters (?p - place)
   :precondition (and (here ?p) (has can_bar_1))
   :effect (and (forall (?f - plant) (when (and (at ?f ?p) (dry ?f)) (and (wet ?f) (not (dry ?f)))))
                (forall (?f - flower) (when (and (at ?f ?p) (wet ?f)) (bloom ?f)))))
 (:action flip
   :parameters (?t - tool)
   :precondition (has ?t)
   :effect (and (when (switched ?t) (not (switched ?t))) (when (not (switched ?t)) (switched ?t))))
 (:action prune
   :parameters (?a - tree ?b - tree)
   :precondition (and (near ?a) (near ?b) (not (= ?a ?b)) (forall (?f - flower) (imply (near ?f) (not (bloom ?f)))))
   :effect (and (tall ?a) (not (tall ?b))))
 (:action ponder :parameters () :precondition () :effect (seen can_bar_1))
 (:action count :parameters (?x - thing) :precondition (not (near ?x)) :effect (seen ?x))
)
"""

PROBLEM = """
(define (problem spring) (:domain garden)
 (:objects north_bar_1 south_bar_1 east_bar_1 - bed rose_bar_1 lily_bar_1 - flower oak_bar_1 elm_bar_1 - tree rake_bar_1 - tool)
 (:init (here north_bar_1) (next north_bar_1 south_bar_1) (next south_bar_1 east_bar_1) (next north_bar_1 theshed_bar_1) (next east_bar_1 east_bar_1)
  (at rose_bar_1 north_bar_1) (at lily_bar_1 south_bar_1) (at oak_bar_1 south_bar_1) (at elm_bar_1 south_bar_1) (at rake_bar_1 east_bar_1) (at can_bar_1 north_bar_1)
  (dry rose_bar_1) (dry lily_bar_1) (dry oak_bar_1) (tall oak_bar_1) (wet elm_bar_1) (= (total-cost) 0)
  (mute rake_bar_1) (mute can_bar_1) (level north_bar_1 rose_bar_1) (level south_bar_1 lily_bar_1))
 (:goal (and (happy) (exists (?t - tool) (has ?t)) (not (dry oak_bar_1)) (forall (?t - tree) (or (tall ?t) (wet ?t)))))
 (:metric minimize (total-cost)))
"""

GRAMMAR = '''
# the garden's words
grammar :: """
{
  "intro": [{"rhs": "  Spring.\\n#look#\\n\\nYour task is to: make it bloom."}],
  "look": [
    {"condition": "here(p:place) & at(t:thing, p:place)", "rhs": "#where#. You see [{#a(t)# | here(p:place) & at(t:thing, p:place)}]."},
    {"rhs": "#where#. It is empty."}
  ],
  "where": [{"rhs": "You are at {p.name | here(p:place)}"}, {"rhs": "unused"}],
  "a(t)": [{"rhs": "{t.indefinite} {t.name}#state(t)#"}],
  "state(t)": [
    {"condition": "bloom(t:flower)", "rhs": "(blooming)"},
    {"condition": "at(t:thing, p:place) & next(p:place, q:place) & at(u:tool, q:place)", "rhs": "(near [{u.id or u.name | next(p:place, q:place) & at(u:tool, q:place)}])"},
    {"rhs": ""}
  ],
  "tools": [
     {"condition": "has(t:tool)", "rhs": "You hold {t.definite + ' ' + t.name | has(t:tool)}."},
     {"condition": "not_has(t:tool)", "rhs": "You put down [{t.name | not_has(t:tool)}] before."},
     {"rhs": "You never held anything."}
  ],
  "pairs": [{"rhs": "[{x.name + '-' + y.name | at(x:plant, p:place) & at(y:plant, p:place)}]"}],
  "switches": [{"condition": "switched(t:tool)", "rhs": "on: [{t.name | switched(t:tool)}]"}, {"rhs": "all off"}],
  "wets": [{"rhs": "wet: [{f.name | wet(f:plant)}]; no longer dry: [{f.name | not_dry(f:plant)}] bloom: [{f.name | bloom(f:flower)}]"}],
  "list_empty": [{"rhs": "nothing"}], "list_separator": [{"rhs": ", "}], "list_last_separator": [{"rhs": " and "}]
}
""";
action walk { template :: "walk to {to}"; feedback :: "You leave {origin.name}. #look#"; }
action enter { template :: "enter {to.name}"; feedback :: "#look#"; }
action stay { template :: "stay at [{to.name | next(to:place, x:place)}] {to}"; feedback :: "#look#"; }
action grab { template :: "grab {t}"; feedback :: "Got {t.name}. #tools# [{x.name | mute(x:object)}] [{x.name | not_mute(x:object)}]"; }
action drop { template :: "drop {t}"; feedback :: "\n Dropped. #tools# #look#"; }
action water {
  template :: "water";
  feedback :: "#watered# #wets#";
  grammar :: """
  # a comment
  { "watered": [{"rhs": "You water [{f.name | at(f:plant, p:place)}]."}] }
  """;
}
action flip { template :: "flip {t}"; feedback :: "Click. #switches#"; }
action prune { template :: "prune {a} with {b}"; feedback :: "#pairs# tall: [{t.name | tall(t:tree)}] not: [{t.name | not_tall(t:tree)}]"; }
action ponder { template :: "ponder"; feedback :: "[{x.name | seen(x:object)}] [{x.name+'/'+y.name | level(x:place, y:object)}]"; }
action count { template :: "count {x}"; feedback :: "{x.type} [{y.name | seen(y:thing)}] #tools#"; }
'''

GARDEN = Game("garden", DOMAIN, PROBLEM, GRAMMAR, ("grab can 1", "water", "water", "walk to south 1", "water", "water"))
