"""Models behind servers that speak OpenAI's protocol. Nothing heavy is imported until an agent is built."""
