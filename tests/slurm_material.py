"""A real Slurm of one node on this machine's loopback: Debian's slurm-wlm and munge, run as root."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

NEEDED = ("munged", "slurmctld", "slurmd", "sbatch")
CONF = """
ClusterName=trial
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
SlurmctldPort={controller}
SlurmdPort={node}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SlurmdParameters=config_overrides
ReturnToService=2
SchedulerParameters=sched_interval=2
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} RealMemory=4000 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


@dataclass(frozen=True)
class Slurm:
    """A running Slurm; ``environment`` leads its commands to it."""

    folder: Path
    environment: dict[str, str]

    def run(self, *command: str, cwd: Path | None = None) -> str:
        """The output of one of Slurm's commands, which has to succeed."""
        done = subprocess.run(
            command, env=self.environment, cwd=cwd, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def jobs(self, state: str = "RUNNING") -> list[str]:
        """Numbers of the jobs in a state."""
        return self.run("squeue", "-h", "-r", "-t", state, "-o", "%A").split()


def can_run() -> bool:
    return os.geteuid() == 0 and all(shutil.which(name, path=_path()) for name in NEEDED)


def _path() -> str:
    return os.environ["PATH"] + ":/usr/sbin:/sbin"


@contextmanager
def running_slurm(folder: Path, cores: int) -> Iterator[Slurm]:
    """Starts a Slurm whose node claims ``cores`` processors, and ends it."""
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    host, ports = socket.gethostname().partition(".")[0], _free_ports(2)
    conf = CONF.format(folder=folder, host=host, controller=ports[0], node=ports[1], cores=cores)
    (folder / "slurm.conf").write_text(conf)
    (folder / "munge.key").write_bytes(os.urandom(1024))
    (folder / "munge.key").chmod(0o400)
    environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": _path()}
    slurm, daemons = Slurm(folder, environment), list[subprocess.Popen[bytes]]()
    munged = [f"--{name}={folder / file}" for name, file in (
        ("key-file", "munge.key"), ("socket", "munge.socket"), ("pid-file", "munge.pid"),
        ("log-file", "munge.log"), ("seed-file", "munge.seed"))]  # fmt: skip
    try:
        for command in (
            ["munged", "--foreground", "--force", *munged],
            ["slurmctld", "-D"],
            ["slurmd", "-D"],
        ):
            daemons.append(subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL,
                                            stderr=subprocess.DEVNULL))  # fmt: skip
            time.sleep(1)
        _wait_until_idle(slurm)
        yield slurm
    finally:
        subprocess.run(["scancel", "-f", "-u", "root"], env=environment, capture_output=True, check=False)
        time.sleep(1)
        for daemon in reversed(daemons):
            daemon.send_signal(signal.SIGTERM)
            daemon.wait(20)


def _wait_until_idle(slurm: Slurm) -> None:
    end = time.monotonic() + 30
    while "idle" not in subprocess.run(
        ["sinfo", "-h", "-o", "%t"], env=slurm.environment, capture_output=True, text=True, check=False
    ).stdout:  # fmt: skip
        assert time.monotonic() < end, (slurm.folder / "slurmctld.log").read_text()[-2000:]
        time.sleep(0.5)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
