"""Wire contracts: every message that crosses a topic, as pydantic models and nothing else."""
