"""Metrics: pure functions on numbers and strings. Arguments that are empty, or differ in length, raise ValueError."""
