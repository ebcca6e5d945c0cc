"""Tests over moto, loopback servers and real clients."""
