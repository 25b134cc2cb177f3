"""
A real Slurm on one host, for tests: munge, a controller, four CPU nodes and two nodes with a (fake) GPU, in a second.

No systemd, cgroups or accounting database; everything lives in one folder and ends with the fixture.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

NEEDED = ("munged", "slurmctld", "slurmd", "srun", "sbatch", "scontrol")
NODES, GPU_NODES = 4, 2

_CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
GresTypes=gpu
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
SchedulerParameters=sched_min_interval=0,batch_sched_delay=0,bf_interval=1,sched_interval=2
MinJobAge=3600
KillWait=2
SlurmdParameters=config_overrides
NodeName=c[1-{nodes}] NodeHostname={host} NodeAddr=127.0.0.1 Port={first}-{last} CPUs=2 RealMemory=8000 State=UNKNOWN
NodeName=g[1-{gpus}] NodeHostname={host} NodeAddr=127.0.0.1 Port={gpu_first}-{gpu_last} CPUs=2 RealMemory=8000 Gres=gpu:fake:1 State=UNKNOWN
PartitionName=cpu Nodes=c[1-{nodes}] Default=YES PriorityTier=2 MaxTime=UNLIMITED DefaultTime=10 DefMemPerCPU=500 State=UP
PartitionName=queue Nodes=c[1-{nodes}] MaxTime=UNLIMITED DefaultTime=10 DefMemPerCPU=500 State=DOWN
PartitionName=gpu Nodes=g[1-{gpus}] MaxTime=UNLIMITED DefaultTime=10 DefMemPerCPU=500 State=UP
"""


def missing() -> str:
    """Why no cluster can be started here; empty when one can."""
    absent = [name for name in NEEDED if shutil.which(name, path=_path()) is None]
    return f"Slurm is not installed ({', '.join(absent)} not found): apt-get install slurm-wlm munge" if absent else ""


class Cluster:
    """A running cluster; ``env`` is what its clients need."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self._processes = folder, list[subprocess.Popen[bytes]]()
        for name in ("state", "bin", *(f"spool.{node}" for node in self.nodes)):
            (folder / name).mkdir(parents=True)
        conf = folder / "slurm.conf"
        user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
        last = port + NODES
        places = {"port": port, "first": port + 1, "last": last, "gpu_first": last + 1, "gpu_last": last + GPU_NODES}
        conf.write_text(_CONF.format(host=_host(), user=user, folder=folder, nodes=NODES, gpus=GPU_NODES, **places))
        (folder / "gres.conf").write_text(f"NodeName=g[1-{GPU_NODES}] Name=gpu Type=fake File=/dev/null\n")
        # The executor drops SLURM_CONF before its inner srun: this one, first on the path, puts it back.
        srun = folder / "bin/srun"
        srun.write_text(f'#!/bin/sh\nSLURM_CONF={conf} exec {shutil.which("srun", path=_path())} "$@"\n')
        srun.chmod(0o755)
        self.env = {**os.environ, "SLURM_CONF": str(conf), "PATH": f"{folder / 'bin'}:{_path()}"}

    @property
    def nodes(self) -> list[str]:
        return [*(f"c{i}" for i in range(1, NODES + 1)), *(f"g{i}" for i in range(1, GPU_NODES + 1))]

    def start(self) -> None:
        """Start the daemons and wait until every node is idle; raises RuntimeError with the logs when one is not."""
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o600)
        munge = {"key-file": "munge.key", "socket": "munge.socket", "pid-file": "munged.pid", "log-file": "munged.log"}
        munge["seed-file"] = "munged.seed"
        self._launch(["munged", "--foreground", "--force", *(f"--{k}={self.folder / v}" for k, v in munge.items())])
        self._until(lambda: (self.folder / "munge.socket").exists(), "munge")
        self._launch(["slurmctld", "-D", "-c"])
        for node in self.nodes:
            self._launch(["slurmd", "-D", "-N", node])
        idle = {f"{node} idle" for node in self.nodes}
        self._until(lambda: set(self.run("sinfo", "-h", "-N", "-o", "%N %T").splitlines()) == idle, "Slurm")

    def stop(self) -> None:
        """Cancel all jobs and end all daemons."""
        self.run("scancel", "--full", "--user", self.env.get("USER", "root"))
        for process in reversed(self._processes):
            process.send_signal(signal.SIGTERM)
        for process in self._processes:
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()

    def run(self, *command: str) -> str:
        """What a client of Slurm prints."""
        done = subprocess.run(command, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        return done.stdout

    def jobs(self) -> list[Mapping[str, str]]:
        """Slurm's own record of every job, finished ones too."""
        blocks = self.run("scontrol", "show", "job", "--details", "--oneliner").splitlines()
        return [dict(part.split("=", 1) for part in line.split() if "=" in part) for line in blocks if "JobId=" in line]

    def _launch(self, command: list[str]) -> None:
        with (self.folder / f"{command[0]}.out").open("ab") as out:
            self._processes.append(subprocess.Popen(command, env=self.env, stdout=out, stderr=out))

    def _until(self, ready, what: str) -> None:
        deadline = time.monotonic() + 30
        while not ready():
            if time.monotonic() > deadline:
                logs = "\n".join(p.read_text(errors="replace")[-800:] for p in sorted(self.folder.glob("*.log")))
                raise RuntimeError(f"{what} did not come up:\n{self.run('sinfo', '-R')}\n{logs}")
            time.sleep(0.1)


def _path() -> str:
    return f"{os.environ['PATH']}:/usr/sbin:/sbin"


def _host() -> str:
    return socket.gethostname().split(".")[0]
