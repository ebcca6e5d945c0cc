"""The commands, grouped by resource."""
