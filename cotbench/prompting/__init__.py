"""What a model is shown and how its answer is read: dialogue, elicitation, query, generation, parsing."""
