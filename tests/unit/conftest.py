"""Hypothesis on machines that do other things as well: no test fails for being interrupted."""

from hypothesis import settings

settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")
