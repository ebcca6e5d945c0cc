"""Adapters: the ports of `modelhaul.ports` over AWS."""
