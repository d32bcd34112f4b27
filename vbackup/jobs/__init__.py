"""What the user asks for: which machines, when, how many at once, what came of it."""
