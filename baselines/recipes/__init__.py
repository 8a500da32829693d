"""Ways to train, one a file."""

RECIPES = {
    "sft": "supervised fine-tuning on traces and actions",
    "sft+": "the same with reduced action supervision: mask fraction 0.3 unless another is given",
    "base": "the model that tiny begins as: it reads transcripts of generated games, without a trace",
}
"""What `--recipe` accepts."""

PRESETS = {
    "paper": "5 epochs, learning rate 1e-5, 16 decisions a step",
    "tiny": "1.5 epochs, learning rate 2e-3, whole episodes as trees, at least 16 decisions a step, averaged weights",
}
"""What `--preset` accepts; the values stand in `sft.PRESETS`."""
