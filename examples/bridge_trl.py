"""Train a model with TRL's GRPO trainer on generated ALFWorld games: the reward is the environment's verdict.

python bridge_trl.py --steps 2        (pip install 'cotbench[trl]'; a tiny model that comes with cotbench, on a CPU)
"""

import argparse

from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig, GRPOTrainer

from cotbench.agents.hf.bundled import tiny_folder
from cotbench.bridges import TRLRollout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=str(tiny_folder()), help="a model of transformers with a chat template")
    parser.add_argument("--env", default="alfworld-gen")
    parser.add_argument("--steps", type=int, default=50, help="updates")
    parser.add_argument("--max-steps", type=int, default=20, help="step budget of an episode")
    parser.add_argument("--out", default="grpo")
    args = parser.parse_args()
    # The split `train`, in CoT mode; each update plays two tasks four times.
    rollout = TRLRollout(args.env, episodes=8, max_steps=args.max_steps, elicitation={"trace_tokens": 32, "action_tokens": 16})
    trainer = GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(args.model, trust_remote_code=False, use_safetensors=True),
        processing_class=AutoTokenizer.from_pretrained(args.model, trust_remote_code=False),
        reward_funcs=rollout.success,
        rollout_func=rollout,
        train_dataset=rollout.dataset(),
        args=GRPOConfig(
            output_dir=args.out,
            max_steps=args.steps,
            per_device_train_batch_size=8,
            num_generations=4,
            learning_rate=1e-6,
            logging_steps=1,
            save_strategy="no",
            report_to=[],
            bf16=False,
        ),
    )
    trainer.train()
    trainer.save_model(args.out)


if __name__ == "__main__":
    main()
