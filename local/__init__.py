"""The local stack: MiniStack, the real template deployed on it, and a Hub to import from."""
