"""What must be undone if we die, and who made it: a library of the hypervisor plugins, see README.md."""
