"""What a test lets go wrong in the simulated vCenter, and where it stops it."""

from __future__ import annotations

from typing import Any

from tests.vcsim.control import Control


class Trouble(Control):
    """Faults, and calls and tasks that are held."""

    def fault(
        self,
        method: str,
        fault: str,
        msg: str = "",
        times: int = 1,
        *,
        skip: int = 0,
        vm: str = "",
        quiesced: bool | None = None,
        call: bool = False,
        **detail: Any,
    ) -> None:
        """Let calls of a SOAP method fail, which then do nothing; that of a method with a task is the task's error.

        skip: so many calls go well before. vm: only those for this machine, or its snapshots and leases. quiesced: only
        snapshots which are to be quiesced (the default for a fault of quiescing), or which are not. call: the call
        fails, not its task. detail: the fault's properties, ``privilegeId="..."``.
        """
        if quiesced is None and "Quiesce" in fault:
            quiesced = True
        what = {"method": method, "fault": fault, "msg": msg, "times": times, "skip": skip, "vm": vm, "call": call}
        self._tell("fault", **what, quiesced=quiesced, detail=detail)

    def http_fault(
        self,
        prefix: str,
        *,
        method: str = "",
        times: int = 1,
        skip: int = 0,
        status: int = 0,
        cut_at: int | None = None,
        cut_upload: int | None = None,
        truncate_at: int | None = None,
        stall_at: int | None = None,
        flip_at: int | None = None,
        no_range: bool = False,
        capacity: int = 0,
        headers: dict[str, str] | None = None,
    ) -> None:
        """Break requests below a path: /folder, /nfc, /rest; /vddk for opening a disk; /sdk for SOAP.

        method: only requests such as PUT; with /sdk only calls of a SOAP method. A call of SOAP is not done when it is
        answered with a status, else it is done.
        One of: answer with a status; cut the connection after so many bytes of the answer, or of the upload; end the
        answer there as if it were whole, without a Content-Length; stall there; a wrong byte there; ignore Range; let a
        lease's stream claim another capacity; replace headers of the answer.
        """
        self._tell(
            "httpfault",
            prefix=prefix,
            method=method,
            times=times,
            skip=skip,
            status=status,
            cut_at=cut_at,
            cut_upload=cut_upload,
            truncate_at=truncate_at,
            stall_at=stall_at,
            flip_at=flip_at,
            no_range=no_range,
            capacity=capacity,
            headers=headers or {},
        )

    def clear_faults(self) -> None:
        """Forget the faults that have not come yet."""
        self._ask("clear-faults")

    def lose_consolidation(self, times: int = 1, fault: str = "", **detail: Any) -> None:
        """Let removals of snapshots leave the layers: the snapshot is gone, and consolidation is needed.

        With a fault their tasks also fail; else they succeed.
        """
        self._tell("lose-consolidation", times=times, fault=fault, detail=detail)

    def lease_fault(self, fault: str, **detail: Any) -> None:
        """Let the next lease end in an error instead of becoming ready."""
        self._tell("leases", fault=fault, detail=detail)

    def lease_delay(self, milliseconds: int) -> None:
        """Let leases be "initializing" for so long."""
        self._tell("leases", delay_ms=milliseconds)

    def host_state(self, name: str, state: str = "disconnected") -> None:
        """Set a host's and its machines' ``runtime.connectionState``: connected, disconnected, notResponding."""
        self._tell("host", name=name, value=state)

    def datastore(self, name: str = "LocalDS_0", *, kind: str | None = None, **values: Any) -> None:
        """Set a datastore's type (VMFS, NFS, NFS41, vsan, VVOL) and properties: ``summary__freeSpace=0``."""
        if kind is not None:
            values["summary.type"] = kind
        self._tell("datastore", name=name, values={path.replace("__", "."): value for path, value in values.items()})

    def deny(self, privilege: str, on: str = "", *, enforce: bool = True) -> None:
        """Take a privilege away, on one object (by its id) or on all; with enforce, calls that need it fail."""
        self._tell("deny", privilege=privilege, value=on)
        self._tell("enforce", on=enforce)

    def expire_sessions(self) -> None:
        """End all sessions, as a vCenter does after half an hour of silence."""
        self._tell("expire-sessions")

    def hold_task(self, method: str) -> None:
        """Let the tasks of a method stay "running" until `release_tasks`; ``state()["held_tasks"]`` is their number."""
        self._tell("hold-task", method=method)

    def release_tasks(self) -> None:
        """Let all held tasks do their work."""
        self._ask("release-tasks")

    def stop_at(self, n: int = 1, call: str = "", when: str = "before", *, freeze: bool = True) -> None:
        """Hold the n-th call from now on (of all, or of those whose name begins so) before or after it is done.

        "after": it is done, but its client is not told. A call's name is that of its SOAP method, or such as
        ``GET /folder``, ``POST /nfc``, ``VDDK``; see `call_log`. freeze: no other call begins meanwhile.
        """
        self._tell("stop-at", n=n, call=call, when=when, freeze=freeze)

    def wait_stopped(self) -> dict[str, Any]:
        """Wait until a call is held, and return its entry of the `call_log`."""
        call: dict[str, Any] = self._ask("wait-stopped")
        return call

    def release(self, *, drop: bool = False) -> None:
        """Let the held call go on, and wait for its end; drop: it never reached the host. Also ends a `stop_at`."""
        self._tell("release", drop=drop)
