"""The default target: a deduplicating, encrypted repository of restore points. FORMAT.md has every byte of it."""
