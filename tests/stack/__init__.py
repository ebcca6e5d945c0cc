"""Tests on the deployed local stack."""
