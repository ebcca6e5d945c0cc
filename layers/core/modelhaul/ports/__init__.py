"""Protocols of the infrastructure that the domain uses. The adapters implement them."""
