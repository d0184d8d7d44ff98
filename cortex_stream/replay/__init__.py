"""Replays: requests that are still in Kafka, put back on the replay lane, and what came of it."""
