"""Inspection of models before publication. Files are recognized by their whole content, and never loaded or run."""
