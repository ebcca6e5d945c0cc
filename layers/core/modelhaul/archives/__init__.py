"""ZIP archives: a strict directory, entries by ranges, inflating, and the models in them."""
