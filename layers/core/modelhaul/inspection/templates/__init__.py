"""Analysis of Jinja templates: which names they can compute."""
