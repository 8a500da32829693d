"""Training code of all recipes. Begin with `loop` (a training, start to end) and `model` (what is trained; LoRA); `masks` is
reduced action supervision, `sequence_tree` and `packing` how episodes become rows of tokens, `ema` the average of the weights.
"""

from typing import TYPE_CHECKING

from cotbench.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from cotbench.baselines.training.batching import make_steps
    from cotbench.baselines.training.dataset import PackedDataset
    from cotbench.baselines.training.ema import WeightEMA
    from cotbench.baselines.training.masks import MaskConfig, Masks
    from cotbench.baselines.training.model import TrainableModel, load_trainable
    from cotbench.baselines.training.options import TrainingOptions
    from cotbench.baselines.training.packing import pack
    from cotbench.baselines.training.recipe_card import TrainingResult
    from cotbench.baselines.training.sequence_tree import Tree, build_trees

_HOMES = {
    "MaskConfig": "masks",
    "Masks": "masks",
    "PackedDataset": "dataset",
    "TrainableModel": "model",
    "TrainingOptions": "options",
    "TrainingResult": "recipe_card",
    "Tree": "sequence_tree",
    "WeightEMA": "ema",
    "build_trees": "sequence_tree",
    "load_trainable": "model",
    "make_steps": "batching",
    "pack": "packing",
}

__all__ = [
    "MaskConfig",
    "Masks",
    "PackedDataset",
    "TrainableModel",
    "TrainingOptions",
    "TrainingResult",
    "Tree",
    "WeightEMA",
    "build_trees",
    "load_trainable",
    "make_steps",
    "pack",
]

__getattr__, __dir__ = lazy_exports(__name__, _HOMES)
