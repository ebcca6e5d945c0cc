"""Adapters that implement the ports of `modelhaul.ports` on AWS."""
