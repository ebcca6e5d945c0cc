"""The local stack: the template deployed to MiniStack, and a Hub and GitHub to import from."""
