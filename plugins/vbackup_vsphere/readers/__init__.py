"""Ways to read a frozen disk."""
