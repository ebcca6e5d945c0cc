"""The contract of each port, over its fake and its adapter."""
