"""Text games in the format of TextWorld's PDDL games: a planning domain, a problem, and a grammar that words them.

Invariant: behaviour follows from the domain and the grammar; no sentence and no predicate of any particular game stands in this
package's code.
"""
