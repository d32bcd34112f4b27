"""Targets and executors that raise, lie, and give something else than they should."""

from __future__ import annotations

import pytest

from tests.hostile.conftest import Fault, Place, faults

WRITING = [fault for fault in faults("targets") if fault.role != "none" and not fault.name.startswith("Reads")]
READING = [fault for fault in faults("targets") if fault.name.startswith("Reads")]


@pytest.mark.parametrize("fault", WRITING, ids=str)
def test_what_a_target_does_wrong_in_a_run_is_told_with_its_name(place: Place, fault: Fault) -> None:
    place.let_loose(fault)
    outcome = place.vbackup("run")
    assert fault.told in outcome.err, outcome.err
    assert "plugin 'wild'" in outcome.err
    assert outcome.code == fault.ends
    place.calm()
    assert len(place.points()) == 1
    place.prove()


@pytest.mark.parametrize("fault", READING, ids=str)
def test_what_a_target_gives_back_is_looked_at(place: Place, fault: Fault) -> None:
    place.let_loose(fault)
    place.refused("restore", "web@latest", "--as", "again", by=f"plugin 'wild', target main (type wild): {fault.told}")
    place.prove()


def test_a_target_that_fails_hides_no_other(place: Place) -> None:
    place.wild("targets", "Shelf", "def points(self): raise RuntimeError('no')")
    place.config["targets"]["second"] = {**place.config["targets"]["main"], "type": "repository"}
    outcome = place.vbackup("list")
    assert outcome.code == 0
    assert "web" in outcome.out
    place.prove()


@pytest.mark.parametrize("method", ["verify", "check", "prune", "protected", "delete"])
def test_each_method_of_a_target_is_guarded(place: Place, method: str) -> None:
    place.wild("targets", "Shelf", f"def {method}(self, *of): raise RuntimeError('no')")
    point = next(iter(place.old))
    args = {"protected": ("prune",), "delete": ("delete", point)}.get(method, (method,))
    place.refused(*args, by=f"plugin 'wild', target main (type wild): {method} raised RuntimeError: no")
    place.prove()


@pytest.mark.parametrize(
    ("method", "answer", "told"),
    [
        ("last_data", 1 << 30, "gave 1073741824, which is not in 0+1048576"),
        ("last_data", "0", "gave '0', which is not in 0+1048576"),
        ("same", None, "gave nothing (None), not bool"),
    ],
)
def test_what_a_target_says_of_the_point_before_is_looked_at(
    place: Place, method: str, answer: object, told: str
) -> None:
    assert place.vbackup("run").code in (0, 3)
    body = f"""
    @contextmanager
    def writer(self):
        with super().writer() as writer:
            disk = writer.disk
            def odd(size, base):
                made = disk(size, base)
                made.{method} = lambda *of: {answer!r}
                return made
            writer.disk = odd
            yield writer
    """
    place.wild("targets", "Shelf", body)
    place.refused("run", by=f"plugin 'wild', target main (type wild): {method} of a disk {told}")
    place.prove()


@pytest.mark.parametrize(
    ("command", "answer", "told"),
    [
        ("verify", "[Damage('', 'web', 'vda', '0', 1, 'no')]", "Damage whose offset is a value of type str"),
        ("verify", "[Damage('', 'web', 'vda', 0, -1, 'no')]", "Damage whose length is -1, not a number from 0 on"),
        ("verify", "progress(None)", "progress of verify gave nothing (None), not a number from 0 on"),
        ("verify", "progress(-1)", "progress of verify gave -1, not a number from 0 on"),
        ("verify", "progress(True)", "progress of verify gave a value of type bool, not a number from 0 on"),
        ("check", "progress('all')", "progress of check gave a value of type str, not a number from 0 on"),
        ("check", "CheckReport(read=None)", "CheckReport whose read is nothing (None), not a number from 0 on"),
        ("check", "CheckReport(wrong='all')", "CheckReport whose wrong is a value of type str, not tuple"),
        ("check", "CheckReport(notes=(b'a',))", "CheckReport whose notes[0] is a value of type bytes, not str"),
        ("check", "CheckReport(damage=(None,))", "CheckReport whose damage[0] is nothing (None), not Damage"),
        (
            "check",
            "CheckReport(damage=(Damage('', '', '', None, 0, ''),))",
            "CheckReport whose damage[0].offset is nothing (None), not a number from 0 on",
        ),
        ("prune", "PruneReport(freed='all')", "PruneReport whose freed is a value of type str, not a number from 0 on"),
        ("prune", "PruneReport(stored=-1)", "PruneReport whose stored is -1, not a number from 0 on"),
        ("prune", "object.__new__(PruneReport)", "PruneReport whose freed is nothing (None), not a number from 0 on"),
        ("damaged_points", "[Damage(None, 'web', '', 0, 0, 'no')]", "Damage whose point is nothing (None), not str"),
    ],
)
def test_what_is_in_the_answers_of_a_target_is_looked_at(place: Place, command: str, answer: str, told: str) -> None:
    place.wild("targets", "Shelf", f"def {command}(self, of=None, progress=None): return {answer}")
    by = told if told.startswith("progress") else f"{command} gave a {told}"
    args = ("verify",) if command == "damaged_points" else (command,)
    place.refused(*args, by=f"plugin 'wild', target main (type wild): {by}")
    place.prove()


@pytest.mark.parametrize(
    ("command", "answer", "said", "code"),
    [
        ("check", "CheckReport(damage=[Damage('', 'web', 'vda', 0, 9, 'lost')])", "web vda at 0+9: lost", 1),
        ("check", "CheckReport(wrong=['all wrong'])", "all wrong", 1),
        ("check", "CheckReport(objects=Count.MANY)", "1024 objects", 0),
        ("prune", "PruneReport(notes=['hello'])", "hello", 3),
        ("prune", "PruneReport(stored=Count.MANY)", "1.0 KiB stored", 0),
    ],
)
def test_answers_that_are_as_good_as_what_is_asked_for_are_taken(
    place: Place, command: str, answer: str, said: str, code: int
) -> None:
    body = f"""
    def {command}(self, of=None, progress=None):
        from enum import IntEnum
        Count = IntEnum("Count", {{"MANY": 1024}})
        return {answer}
    """
    place.wild("targets", "Shelf", body)
    outcome = place.vbackup(command)
    assert said in outcome.out + outcome.err, outcome
    assert outcome.code == code, outcome
    place.prove()


@pytest.mark.parametrize(
    ("command", "body", "told"),
    [
        ("list", "def slots(self): raise RuntimeError('no')", "slots raised RuntimeError: no"),
        ("list", "def slots(self): return None", "slots gave nothing (None), not several of KeySlot"),
        ("list", "def slots(self): return [{}]", "slots gave a value of type dict among what must be of type KeySlot"),
        (
            "list",
            "def slots(self): return [KeySlot('0', 'passphrase', None, '', True, True, 'good')]",
            "slots gave a KeySlot whose label is nothing (None), not str",
        ),
        (
            "list",
            "def slots(self): return [KeySlot('0', 'passphrase', '', '', True, True, 'fine')]",
            "slots gave a KeySlot whose state is a value of type str, not one of good, old, damaged",
        ),
        ("rotate", "def rotate(self): raise SystemExit(0)", "rotate raised SystemExit: 0"),
        ("rotate", "def rotate(self): return None", "rotate gave nothing (None), not KeyRotation"),
        (
            "rotate",
            "def rotate(self): return KeyRotation((1,), (), ())",
            "rotate gave a KeyRotation whose sealed[0] is 1, not KeySlot",
        ),
    ],
)
def test_what_the_keys_of_a_target_do_wrong_is_told(place: Place, command: str, body: str, told: str) -> None:
    ring = f"""
    def key_ring(self):
        class Odd(type(super().key_ring())):
            {body}
            def __init__(self): pass
        return Odd()
    """
    place.wild("targets", "Shelf", ring)
    place.refused("key", command, by=f"plugin 'wild', target main (type wild): {told}")
    place.prove()


@pytest.mark.parametrize("method", ["add_secret", "remove"])
def test_each_change_of_the_keys_of_a_target_is_guarded(place: Place, method: str) -> None:
    """A key that was not added is not left beside as if it had been."""
    body = f"""
    def key_ring(self):
        ring = super().key_ring()
        ring.{method} = lambda *of, **more: 1 / 0
        return ring
    """
    place.wild("targets", "Shelf", body)
    made = place.directory / "second.key"
    args = {"add_secret": ("add", "--key-file", str(made)), "remove": ("remove", "0")}[method]
    place.refused("key", *args, by=f"plugin 'wild', target main (type wild): {method} raised ZeroDivisionError")
    assert not made.exists()
    place.prove()


def test_a_secret_that_a_target_refuses_is_not_shown(place: Place) -> None:
    """Not in the message, and not in the log, which tells where errors come from."""
    body = """
    def key_ring(self):
        ring = super().key_ring()
        ring.add_secret = lambda secret, label, *, read: int(secret)
        return ring
    """
    place.wild("targets", "Shelf", body)
    secret = place.directory / "passphrase"
    secret.write_text("correct horse battery staple")
    outcome = place.vbackup("-vv", "key", "add", "--passphrase-file", str(secret))
    assert outcome.code == 1
    assert "plugin 'wild', target main (type wild): add_secret raised ValueError\n" in outcome.err
    assert "horse" not in outcome.out + outcome.err
    place.prove()


OWN_POINTS = """
role = "targets"
def points(self):
    from pydantic import Field, PrivateAttr
    class OwnDisk(PointDisk):
        pool: str = Field(exclude=True)
    class Own(Point):
        _shelf: str = PrivateAttr("")
        row: str = Field(alias="in-row")
        seconds: float = Field(exclude=True)
    found = []
    for point in super().points():
        disks = tuple(OwnDisk(**vars(disk), pool="fast") for disk in point.disks)
        own = Own(**{**vars(point), "disks": disks, "in-row": "third"})
        own._shelf = "top"
        found.append(own)
    return found
def extents(self, point, disk, since=None):
    assert (point._shelf, point.row, point.disks[0].pool) == ("top", "third", "fast")
    return super().extents(point, disk, since)
"""


def test_points_of_a_class_of_its_own_come_back_to_a_target_as_they_are(place: Place) -> None:
    place.wild("targets", "Shelf", OWN_POINTS)
    place.config["jobs"]["nightly"]["machines"] = ["lab:web"]  # and not the one that is restored
    assert place.vbackup("restore", "web@latest", "--as", "again").code == 0
    assert place.vbackup("run").code in (0, 3)
    place.prove()


@pytest.mark.parametrize("change", ["'disks': list(point.disks)", "'time': str(point.time)"])
def test_points_that_are_nearly_right_are_set_right(place: Place, change: str) -> None:
    body = f"def points(self): return [point.model_copy(update={{{change}}}) for point in super().points()]"
    place.wild("targets", "Shelf", body)
    place.config["jobs"]["nightly"]["machines"] = ["lab:web"]  # and not the one that is restored
    assert place.vbackup("restore", "web@latest", "--as", "again").code == 0
    place.prove()


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("report(None)", "progress of take_over gave nothing (None), not DiskProgress"),
        (
            "report(DiskProgress('vda', 1, -1, 0, 0, 0, 0))",
            "progress of take_over gave a DiskProgress whose done is -1, not",
        ),
        ("return TakenOver(point, None)", "take_over gave a TakenOver whose read is nothing (None), not a number"),
        (
            "return TakenOver(Point.model_construct(), 0)",
            "take_over gave a Point that is none: ValidationError: id: Field required",
        ),
    ],
)
def test_what_a_target_says_of_what_it_takes_over_is_looked_at(place: Place, body: str, told: str) -> None:
    take_over = f"""
    def exchanges_with(self, source): return True
    def take_over(self, writer, source, point, base, report):
        {body}
    """
    place.wild("targets", "Shelf", take_over)
    place.config["transports"]["other"] = {"type": "local", "path": str(place.directory / "other")}
    place.config["targets"]["copies"] = {**place.config["targets"]["main"], "transport": "other"}
    place.config["targets"]["main"]["type"] = "repository"
    (place.directory / "other").mkdir()
    place.vbackup("init")
    place.refused("copy", "web@latest", "--to", "copies", by=f"plugin 'wild', target copies (type wild): {told}")
    del place.config["targets"]["copies"]
    place.prove()


@pytest.mark.parametrize("fault", faults("executors"), ids=str)
def test_what_an_executor_does_wrong_is_told_with_its_name(place: Place, fault: Fault) -> None:
    place.let_loose(fault)
    place.refused("run", by=f"plugin 'wild', executor wild: {fault.told}")
    place.prove()


def test_work_that_an_executor_repeats_is_done_once(place: Place) -> None:
    body = """
    def run(self, tasks, work, parallel):
        for task in tasks:
            yield task, work(task)
            yield task, work(task)
    """
    place.wild("executors", "Threads", body)
    outcome = place.vbackup("run")
    assert "plugin 'wild', executor wild: run called the work of web twice" in outcome.err
    assert outcome.code == 3  # the point is good
    place.calm()
    assert len(place.points()) == 2
    place.prove()


def test_work_that_an_executor_leaves_running_is_waited_for(place: Place) -> None:
    body = """
    def run(self, tasks, work, parallel):
        began = threading.Event()
        def late(task):
            began.set()
            work(task)


        threads = [threading.Thread(target=late, args=(task,)) for task in tasks]
        for thread in threads: thread.start()
        began.wait()
        while not work.gate._inside and not work.results: pass
        return iter([])
    """
    place.wild("executors", "Threads", body)
    assert place.vbackup("run").code in (0, 3)
    place.calm()
    assert len(place.points()) == 2
    place.prove()
