"""Audits that look inside a model rather than ask it."""
