"""``make demo``: vbackup backs up a real, running machine, loses it, and brings it back."""
