"""Text games in the format of TextWorld's PDDL games: a planning domain, a problem, and a grammar that words them.

Invariant: what the domain and the grammar say decides; no sentence and no predicate of any particular game stands in this
package's code.
"""
