"""Retention: which models are deleted, why, and their deletion once a day."""
