"""Recipe `grpo`: group relative policy optimisation (DeepSeekMath, arXiv 2402.03300) on whole episodes. Begin with `recipe`;
`advantages`, `rewards`, `loss` and `masking` are pure; `rollouts` plays, `trainer` updates.
"""
