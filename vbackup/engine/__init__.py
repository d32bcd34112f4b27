"""The flows: capture, copy, commit; restore."""
