"""Debian's nginx with the configuration of deploy/nginx, in front of instances on this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.server import PATIENCE_SECONDS, ROOT, Caller, free_port, wait_until

SOURCE = ROOT / "deploy" / "nginx"


@contextmanager
def running_nginx(folder: Path, ports: Sequence[int]) -> Iterator[Caller]:
    """Serve the instances at *ports* under /wine of another port; what nginx writes is under *folder*.

    Only the places where it listens and writes differ from what is deployed.
    """
    nginx = shutil.which("nginx", path="/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin")
    if nginx is None:
        pytest.skip("The tests of the ingress need nginx: apt-get install nginx-light")
    user = "user root;" if os.getuid() == 0 else ""  # else its workers cannot enter the folders of the tests
    port = free_port()
    folder.mkdir(parents=True)
    deployed = (SOURCE / "ingress.conf").read_text()
    (folder / "ingress.conf").write_text(
        deployed.replace("listen 8080", f"listen 127.0.0.1:{port}")
        .replace("/tmp/", f"{folder}/")
        .replace("/dev/stdout", f"{folder}/access.log")
    )
    shutil.copy(SOURCE / "proxy.conf", folder)
    (folder / "upstream.conf").write_text("".join(f"server 127.0.0.1:{each} max_fails=0;\n" for each in ports))
    with (folder / "error.log").open("wb") as errors:
        process = subprocess.Popen(
            [nginx, "-p", folder, "-c", folder / "ingress.conf", "-g", f"daemon off; {user}"],
            stdin=subprocess.DEVNULL,
            stderr=errors,
        )
    caller = Caller(f"http://127.0.0.1:{port}/wine")
    try:
        wait_until(lambda: process.poll() is not None or _answers(caller), "nginx")
        assert process.poll() is None, (folder / "error.log").read_text()
        yield caller
    finally:
        process.terminate()
        process.wait(PATIENCE_SECONDS)


def _answers(caller: Caller) -> bool:
    try:
        return bool(caller.get("/health/live"))
    except OSError:
        return False
