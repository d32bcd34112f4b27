"""Transports around transports: what all of them get from the framework, so that none has it of its own.

In this order, from the outside, each for a reason:

1. `cache`: what is here already costs nothing below.
2. `retry`: each further attempt is limited, counted and logged as the first one is.
3. `readonly`: what is refused was never tried, and waits for nothing.
4. `limit`: who waits for bandwidth holds no place among those at work.
5. `parallel`: who waits for a place is not yet at work, so its time is not in the log.
6. `log`: each operation as the store saw it, and how long the store took.
"""
