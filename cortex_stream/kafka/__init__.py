"""Clients of Kafka: administration, security, producing."""
