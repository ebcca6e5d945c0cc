"""Signatures of models in the format of OpenSSF Model Signing."""
