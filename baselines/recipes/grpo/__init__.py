"""Recipe `grpo`: group relative policy optimisation (DeepSeekMath, arXiv 2402.03300) on whole episodes. Begin with `recipe`;
`advantages`, `rewards`, `turns`, `loss` and `batch` are pure; `rollouts` plays, `trainer` updates.
"""
