"""The parser of arguments."""
