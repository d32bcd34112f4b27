"""The demo: a full backup, two incremental ones, a comparison bit for bit, a disaster, and the machine is back.

Needs root. Everything it makes (a libvirtd of its own, machines, files) lives below one temporary directory and is gone
afterwards, however it ends; see ``tests/lab/README.md``.
"""

from __future__ import annotations

import signal
import subprocess
import sys

from tests.demo.story import Story
from vbackup.testing.lab import build
from vbackup.testing.lab.domain import Disk, Machine
from vbackup.testing.lab.guest import Guest, copy_disk
from vbackup.testing.lab.libvirtd import Libvirtd, until
from vbackup.testing.lab.namespace import LabError

NAME, COPY = "demo-guest", "demo-restored"
CONFIG = """\
hypervisors:
  lab:     {{type: libvirt, uri: "qemu:///system"}}
transports:
  disk:    {{type: local, path: {place}/store}}
targets:
  main:    {{type: repository, transport: disk, codecs: [{{type: zstd, level: 3}}, {{type: aes-256-gcm}}],
            key: {{file: {place}/main.key}}}}
jobs:
  nightly: {{machines: ["lab:{name}"], target: main, quiesce: try}}
"""


class Demo:
    """The plot."""

    def __init__(self, libvirtd: Libvirtd) -> None:
        self.libvirtd = libvirtd
        self.place = libvirtd.root / "demo"
        self.place.mkdir()
        (self.place / "store").mkdir()
        self.config = self.place / "vbackup.yaml"
        self.story = Story(self.config, self.place)
        self.digests: list[str] = []

    def run(self) -> None:
        """Tell it from beginning to end."""
        guest = self.switch_on()
        self.first_backup()
        self.incrementals(guest)
        self.compare(guest)
        self.lose(guest)
        self.bring_back()
        self.story.chapter("Done: lost, and found again.")

    def switch_on(self) -> Guest:
        """Boot the guest."""
        self.story.chapter("A real machine: Linux with an ext4 disk and a guest agent, under libvirt and QEMU")
        files = build.guest_files()
        place = self.place / "machine"
        disks = (
            Disk("vda", path=copy_disk(files.disk, place / "vda.qcow2")),
            Disk("vdb", size=128 << 20, format="raw"),
        )
        guest = Guest.define(self.libvirtd, Machine(NAME, place, disks, memory=192, kernel=files))
        guest.start()
        guest.wait_ready()
        self.story.say(f"{NAME} is up; it writes a line to its disk every second. It says: {guest.found.strip()}")
        return guest

    def first_backup(self) -> None:
        """Write the configuration and take everything."""
        self.story.chapter("One YAML file, and the first backup: all of the disks, while the machine runs")
        text = CONFIG.format(place=self.place, name=NAME)
        self.config.write_text(text)
        self.story.say(text)
        self.story.vbackup("init")
        self.story.vbackup("run", "nightly")

    def incrementals(self, guest: Guest) -> None:
        """Change something, twice; the second time hold the machine still, so that it can be compared."""
        self.story.chapter("The guest writes 16 MiB; the second backup reads what changed and nothing else")
        self.write(guest, "first", 16)
        self.story.vbackup("run", "nightly")
        self.story.chapter("It writes 8 MiB more, and is paused, so that we can compare in a moment: the third backup")
        self.write(guest, "second", 8)
        guest.exec("dd if=/dev/urandom of=/dev/vdb bs=1M seek=32 count=4 2>&1; sync")
        guest.pause()
        self.story.say(
            "A paused guest cannot freeze its file systems: vbackup goes on, as `quiesce: try` says, and warns."
        )
        self.story.vbackup("run", "nightly")
        self.story.vbackup("list")

    def write(self, guest: Guest, name: str, mebibytes: int) -> None:
        """Have the guest write a file and remember what it is."""
        guest.exec(f"mkdir -p /data/keep; dd if=/dev/urandom of=/data/keep/{name} bs=1M count={mebibytes} 2>&1; sync")
        digest = guest.exec(f"sha256sum /data/keep/{name}").split()[0]
        self.story.say(f"In the guest: /data/keep/{name}, sha256 {digest}")
        self.digests.append(digest)

    def compare(self, guest: Guest) -> None:
        """Compare the disks that the paused machine has with those of the restore point."""
        self.story.chapter("Is it the same? Both disks of the restore point against those of the paused machine")
        restored = {target: self.place / f"{target}.restored" for target in guest.disks}
        wanted = [argument for target, path in restored.items() for argument in ("--disk", f"{target}={path}")]
        self.story.vbackup("restore", f"{NAME}@latest", *wanted, "--format", "raw")
        for target, image in guest.disks.items():
            # -U: QEMU holds the image; it is paused and has written everything out.
            command = [
                "qemu-img",
                "compare",
                "-U",
                "-f",
                "raw",
                "-F",
                image.suffix[1:],
                str(restored[target]),
                str(image),
            ]
            said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            self.story.say(f"{target}: qemu-img compare says: {said.strip()}")

    def lose(self, guest: Guest) -> None:
        """The disaster."""
        self.story.chapter("Disaster: QEMU is killed, the machine undefined, its disks deleted")
        images = guest.disks.values()
        guest.kill_qemu()
        guest.undefine()
        for image in images:
            image.unlink()

    def bring_back(self) -> None:
        """Restore under a new name, boot, and ask the guest what it finds."""
        self.story.chapter("Back again, under a new name, and switched on")
        self.story.vbackup("restore", f"{NAME}@latest", "--as", COPY, "--start")
        copy = Guest(self.libvirtd, COPY)
        copy.wait_ready()
        found = copy.found
        self.story.say(f"{COPY} has booted. It says:\n{found.strip()}")
        if missing := [digest for digest in self.digests if digest not in found]:
            raise LabError(f"the restored machine does not find its own data: {missing}")
        until(lambda: int(copy.exec("wc -l </data/log")) > 1, "the restored machine to go on with its log")
        self.story.say("All its files are there, and its log goes on: " + copy.exec("tail -n 1 /data/log").strip())


def main() -> None:
    """Run the demo; the exit code tells whether every step did what it should."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        with Libvirtd() as libvirtd:
            Demo(libvirtd).run()
    except (LabError, subprocess.CalledProcessError) as error:
        sys.exit(f"The demo failed: {error}")
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)


if __name__ == "__main__":
    main()
