"""Fakes under contract and clients for acceptance tests."""
