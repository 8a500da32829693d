"""Token ids, for every backend that sees them: `chat_template` renders prompts, `token_ids` does the rest."""
