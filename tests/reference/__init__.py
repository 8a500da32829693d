"""Comparisons with the upstream programs, too long for every run of the tests."""
