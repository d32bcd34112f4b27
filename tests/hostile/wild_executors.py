"""Executors, each with one fault; its docstring is what the user is told. See `Place.let_loose`."""

from stranger_tame import Interrupted, PluginError, Threads, Unavailable


class Raises(Threads):
    """run raised RuntimeError: no"""

    def run(self, tasks, work, parallel):
        raise RuntimeError("no")


class Exits(Threads):
    """run raised SystemExit: 0"""

    def run(self, tasks, work, parallel):
        raise SystemExit(0)


class RaisesOneOfOurs(Threads):
    """run raised worker host h2 is away"""

    def run(self, tasks, work, parallel):
        raise Unavailable("worker host h2 is away")


class RaisesInterrupted(Threads):
    """run raised nobody had asked for it"""

    def run(self, tasks, work, parallel):
        raise Interrupted("nobody had asked for it")


class RaisesAPluginErrorWithoutAName(Threads):
    """run raised no"""

    def run(self, tasks, work, parallel):
        raise PluginError("no")


class NeverRuns(Threads):
    """run ended, and 1 of 1 tasks were never run"""

    def run(self, tasks, work, parallel):
        return iter([])


class Nothing(Threads):
    """run raised TypeError"""

    def run(self, tasks, work, parallel):
        return None


class OnlySaysSo(Threads):
    """run ended, and 1 of 1 tasks were never run"""

    def run(self, tasks, work, parallel):
        return iter([(tasks[0], ())])


class ResultsOfItsOwn(Threads):
    """run gave something else than a task that it was given"""

    def run(self, tasks, work, parallel):
        return iter(["done"])
