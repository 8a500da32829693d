"""A small model that learns the environments from scratch on a laptop."""
