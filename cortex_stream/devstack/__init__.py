"""Real Kafka, Redis and PostgreSQL on this machine, from packages: no Docker, no root."""
