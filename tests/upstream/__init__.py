"""Loopback upstreams: real HTTP servers that speak the read protocols models are imported from."""
