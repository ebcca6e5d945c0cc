"""What may be published: files are recognized by their whole content, and nothing is ever loaded or run."""
