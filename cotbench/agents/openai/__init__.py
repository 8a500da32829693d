"""Models behind servers with OpenAI's protocol. Nothing heavy is imported until an agent is built."""
