"""Statistics: estimates with intervals, bootstrap, equivalence tests, Holm, trends. Pure functions."""
