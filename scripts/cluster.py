"""A Ray cluster of three hosts on one machine, each a network namespace with an address of its own.

    sudo python scripts/cluster.py up
    sudo python scripts/cluster.py run -- python -m examples.flights
    sudo python scripts/cluster.py down

`run` executes a command on the first host, as a driver would be. Without `up` it raises a cluster for that one command.
Needs Linux, root, and `ip` (Debian's package iproute2).
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

# Only root can write there, and what it says is removed as root.
STATE = Path("/run/shardfit-three-hosts.json")

_START_SECONDS = 120.0
_STOP_SECONDS = 20.0
_PORT = 6379


@dataclass(frozen=True)
class HostCluster:
    """A running cluster; the first host is the head.

    Args:
        name: Prefix of the bridge and of the namespaces.
        subnet: First three numbers of the addresses; host `i` has `<subnet>.<i + 1>`.
        hosts: Number of hosts.
        cpus: CPUs that each host claims to have.
        token: What nodes and drivers authenticate with.
        folder: Ray's files and the nodes' logs.
    """

    name: str
    subnet: str
    hosts: int
    cpus: int
    token: str
    folder: str

    @property
    def addresses(self) -> tuple[str, ...]:
        """Address of each host."""
        return tuple(f"{self.subnet}.{host + 1}" for host in range(self.hosts))

    @property
    def environ(self) -> dict[str, str]:
        """What a driver finds the cluster by."""
        return {
            "RAY_ADDRESS": f"{self.addresses[0]}:{_PORT}",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": self.token,
        }

    def namespace(self, host: int) -> str:
        """Name of a host's network namespace."""
        return f"{self.name}-h{host + 1}"

    def link(self, host: int) -> str:
        """Name of a host's network interface, within its namespace."""
        return f"{self.name}i{host}"

    def start(self, command: Sequence[str], host: int = 0, environ: Mapping[str, str] | None = None) -> Process:
        """Start a command on a host, as a driver of the cluster; its output comes as text through a pipe.

        Args:
            command: Program and arguments.
            host: 0 for the head.
            environ: Environment variables on top of this process's and the cluster's.
        """
        return subprocess.Popen(
            ["ip", "netns", "exec", self.namespace(host), *command],
            env={**os.environ, **self.environ, **(environ or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, command: Sequence[str], timeout_s: float = 600.0, environ: Mapping[str, str] | None = None) -> str:
        """Run a command on the head and return its output.

        Raises:
            RuntimeError: It failed, or did not end in time; the output is in the message.
        """
        process = self.start(command, environ=environ)
        try:
            output, _ = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            output = f"{process.communicate()[0]}\nIt did not end within {timeout_s:g} s."
        if process.returncode:
            raise RuntimeError(f"{' '.join(command)} exited with {process.returncode}:\n{output}")
        return output

    def run_script(self, text: str, timeout_s: float = 600.0, environ: Mapping[str, str] | None = None) -> str:
        """Run a Python program on the head and return its output.

        Args:
            text: The program itself.
            timeout_s: Seconds until it is ended.
            environ: Environment variables on top of this process's and the cluster's.
        """
        script = Path(self.folder) / f"script-{secrets.token_hex(4)}.py"
        script.write_text(text)
        return self.run([sys.executable, str(script)], timeout_s, environ)

    def lose(self, host: int) -> None:
        """Kill every process of a host at once, as a loss of power does."""
        _kill_namespace(self.namespace(host))


Process = subprocess.Popen[str]


def why_impossible() -> str | None:
    """Return why this machine cannot hold such a cluster and what would change that, or None."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "network namespaces need Linux and root: run as root"
    if shutil.which("ip") is None:
        return "the command `ip` is missing: install iproute2"
    probe = f"sf{secrets.token_hex(3)}"
    made = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True)
    if made.returncode:
        return f"this system makes no network namespaces ({made.stderr.strip()}): use a privileged container"
    subprocess.run(["ip", "netns", "del", probe], check=True)
    return None


@contextmanager
def three_host_cluster(hosts: int = 3, cpus: int = 2) -> Iterator[HostCluster]:
    """Raise a cluster; it is gone afterwards, whatever happened.

    Args:
        hosts: Number of hosts.
        cpus: CPUs that each host claims to have; may be more than the machine has.
    """
    cluster = _plan(hosts, cpus)
    nodes: list[subprocess.Popen[bytes]] = []
    try:
        _raise(cluster, nodes)
        yield cluster
    finally:
        drop(cluster)
        for node in nodes:
            node.wait()


def drop(cluster: HostCluster) -> None:
    """End every process of the cluster and remove its namespaces, bridge and files."""
    for host in range(cluster.hosts):
        _kill_namespace(cluster.namespace(host))
        subprocess.run(["ip", "netns", "del", cluster.namespace(host)], capture_output=True)
    subprocess.run(["ip", "link", "del", cluster.name], capture_output=True)
    shutil.rmtree(cluster.folder, ignore_errors=True)


def _plan(hosts: int, cpus: int) -> HostCluster:
    number = secrets.randbelow(250)
    # Short: interface names have 15 characters at most, and the paths of sockets 107.
    name = f"sf{secrets.token_hex(2)}"
    folder = tempfile.mkdtemp(prefix=name)
    return HostCluster(name, f"10.231.{number}", hosts, cpus, secrets.token_hex(32), folder)


def _raise(cluster: HostCluster, nodes: list[subprocess.Popen[bytes]]) -> None:
    _ip("link", "add", cluster.name, "type", "bridge")
    _ip("link", "set", cluster.name, "up")
    for host, address in enumerate(cluster.addresses):
        _connect(cluster, host, address)
    for host in range(cluster.hosts):
        # One after another: the hosts share this machine's files, and Ray's nodes choose names there when they start.
        nodes.append(start_node(cluster, host))
        wait_until_joined(cluster, host, nodes[-1])


def _connect(cluster: HostCluster, host: int, address: str) -> None:
    space, outer, inner = cluster.namespace(host), f"{cluster.name}o{host}", cluster.link(host)
    _ip("netns", "add", space)
    _ip("link", "add", outer, "type", "veth", "peer", "name", inner)
    _ip("link", "set", outer, "master", cluster.name, "up")
    _ip("link", "set", inner, "netns", space)
    _ip("-n", space, "addr", "add", f"{address}/24", "dev", inner)
    _ip("-n", space, "link", "set", inner, "up")
    _ip("-n", space, "link", "set", "lo", "up")
    # It leads nowhere, but programs find out their own address by asking which one they would leave by.
    _ip("-n", space, "route", "add", "default", "dev", inner)


def wait_until_joined(cluster: HostCluster, host: int, node: subprocess.Popen[bytes]) -> None:
    """Wait until a node that was started has joined the cluster.

    Raises:
        RuntimeError: It ended, or took too long; its log is in the message.
    """
    log = Path(cluster.folder) / f"host{host + 1}.log"
    deadline = time.monotonic() + _START_SECONDS
    while "Ray runtime started" not in log.read_text():
        if node.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"host {host + 1} did not start:\n{log.read_text()}")
        time.sleep(0.1)


def start_node(cluster: HostCluster, host: int) -> subprocess.Popen[bytes]:
    """Start Ray's node of a host; its output goes to a log in the cluster's folder."""
    command = ["ip", "netns", "exec", cluster.namespace(host)]
    command += [str(Path(sys.executable).with_name("ray")), "start", "--block", "--disable-usage-stats"]
    command += [f"--node-ip-address={cluster.addresses[host]}", f"--num-cpus={cluster.cpus}", "--num-gpus=0"]
    command += ["--object-store-memory=200000000"]
    if host == 0:
        command += ["--head", f"--port={_PORT}", "--include-dashboard=false", f"--temp-dir={cluster.folder}/ray"]
    else:
        command += [f"--address={cluster.addresses[0]}:{_PORT}"]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    # Ray's workers let every other process of a host go first; here that would be those of all hosts.
    environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": cluster.token, "RAY_worker_niceness": "0"}
    with (Path(cluster.folder) / f"host{host + 1}.log").open("wb") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environ)


def _kill_namespace(space: str) -> None:
    deadline = time.monotonic() + _STOP_SECONDS
    while (pids := pids_of(space)) and time.monotonic() < deadline:
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.05)


def pids_of(space: str) -> list[int]:
    """Return the processes of a network namespace."""
    listed = subprocess.run(["ip", "netns", "pids", space], capture_output=True, text=True)
    alive = [int(pid) for pid in listed.stdout.split()]
    # A child of this process stays as a zombie until it is waited for, which is nobody's business here.
    return [pid for pid in alive if not _is_zombie(pid)]


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


def _up() -> None:
    if STATE.exists():
        sys.exit(f"A cluster is up already: {STATE}. Run `down` first.")
    cluster = _plan(3, 2)
    try:
        _raise(cluster, [])
        with os.fdopen(os.open(STATE, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
            json.dump(asdict(cluster), file)
    except BaseException:
        drop(cluster)
        raise
    print(f"Up: {', '.join(cluster.addresses)}.")


def _down() -> None:
    if STATE.exists():
        drop(HostCluster(**json.loads(STATE.read_text())))
        STATE.unlink()


def _run(command: Sequence[str]) -> int:
    if not STATE.exists():
        with three_host_cluster() as cluster:
            return _run_on(cluster, command)
    return _run_on(HostCluster(**json.loads(STATE.read_text())), command)


def _run_on(cluster: HostCluster, command: Sequence[str]) -> int:
    full = ["ip", "netns", "exec", cluster.namespace(0), *command]
    return subprocess.run(full, env={**os.environ, **cluster.environ}).returncode


def main(arguments: Sequence[str]) -> int:
    """Run the command line."""
    if (reason := why_impossible()) is not None:
        sys.exit(f"A cluster of three hosts is not possible here; {reason}.")
    match list(arguments):
        case ["up"]:
            _up()
        case ["down"]:
            _down()
        case ["run", "--", *command] if command:
            return _run(command)
        case _:
            sys.exit(__doc__)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
