"""The parser of arguments."""

from argparse import ArgumentParser


class FlexibleArgumentParser(ArgumentParser):
    """A parser."""
