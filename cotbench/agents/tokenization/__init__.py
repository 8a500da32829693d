"""What every backend that sees token ids shares: the chat template, the prompt's ids, the ids of an answer."""
