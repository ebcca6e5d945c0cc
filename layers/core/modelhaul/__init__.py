"""Modelhaul: AI models from their sources into a bucket of your own, verified and whole."""
