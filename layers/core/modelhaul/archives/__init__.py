"""ZIP archives: strict parsing, reading entries by ranges, decompression, and finding the models in them."""
