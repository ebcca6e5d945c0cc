"""Verify a deployed stack: import models, read them back, and compare its resources with the deployed template."""
