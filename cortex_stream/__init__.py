"""The engine and everything that runs without Faust."""
