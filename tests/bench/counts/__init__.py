"""``make bench-check``: what does not depend on the machine, compared with what is committed.

A time says little on a machine that others share. How much is read and stored, how often a store is asked, how many
functions of Python run for each chunk, and how much memory that takes, are the same everywhere: so a change that makes
vbackup slower is found where it is made, by the tests.
"""
