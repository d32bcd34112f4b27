"""An executor, as one was written for API version 1: one task after the other."""

from vbackup.api import Options, hookimpl

VBACKUP_API_VERSION = 1


class OldExecutor:
    name = "old-executor"
    options = Options

    def __init__(self, options):
        pass

    def run(self, tasks, work, parallel):
        for task in tasks:
            yield task, work(task)


@hookimpl
def vbackup_register_executors(register):
    register(OldExecutor)
