"""A judge of the two actions of one state: question, judgements, folder, table."""
