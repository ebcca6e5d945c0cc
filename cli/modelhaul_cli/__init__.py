"""`modelhaul`: the command line. It knows the API and presigned addresses, and nothing of AWS or of the layers."""
