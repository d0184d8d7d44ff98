"""Remembers which payload a request id came with, so that its reuse for another one is noticed."""
