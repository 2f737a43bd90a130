"""What remains of the service when five times as much comes as it can answer.

    python benchmarks/overload.py [--seconds 60] [--rows 200] [--workers 2]

First a few clients that wait for their answers find what is sustainable: the peak. Then clients come at five times that
rate, whatever happens to those before them, as real ones do. Meanwhile somebody asks for health five times a second.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from tests.server import running_server
from wine_api.api.examples import RED

CLIENTS = 8


async def ask(port: int, request: bytes) -> tuple[int, float]:
    """Send *request* on a connection of its own; return the status, 0 if there was no answer, and the seconds."""
    began = time.perf_counter()
    try:
        async with asyncio.timeout(30):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request)
            answer = await reader.read()
            writer.close()
    except (OSError, TimeoutError):
        return 0, time.perf_counter() - began
    return int(answer[9:12] or 0), time.perf_counter() - began


async def patient(port: int, request: bytes, seconds: float) -> list[tuple[int, float]]:
    answers, end = [], time.perf_counter() + seconds

    async def client() -> None:
        while time.perf_counter() < end:
            answers.append(await ask(port, request))

    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return answers


async def flood(port: int, request: bytes, seconds: float, rate: float) -> list[tuple[int, float]]:
    asked, began = [], time.perf_counter()
    while (elapsed := time.perf_counter() - began) < seconds:
        while len(asked) < elapsed * rate:
            asked.append(asyncio.create_task(ask(port, request)))
        await asyncio.sleep(0.001)
    return await asyncio.gather(*asked)


async def probe(port: int, stop: asyncio.Event) -> list[tuple[int, float]]:
    answers = []
    while not stop.is_set():
        answers.append(await ask(port, b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))
        await asyncio.sleep(0.2)
    return answers


def told(answers: list[tuple[int, float]], seconds: float) -> dict[int, str]:
    by_status = defaultdict(list)
    for status, took in answers:
        by_status[status].append(1000 * took)
    return {
        status: f"{len(took) / seconds:.0f}/s, p50 {statistics.median(took):.1f} ms, "
        f"p99 {sorted(took)[int(len(took) * 0.99)]:.1f} ms"
        for status, took in sorted(by_status.items())
    }


async def measure(port: int, rows: int, seconds: float) -> None:
    body = json.dumps({"features_list": [RED] * rows}).encode()
    request = (
        b"POST /predict/batch HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    )
    await patient(port, request, 1)
    peak = await patient(port, request, seconds)
    print("peak    ", told(peak, seconds))
    rate = 5 * len(peak) / seconds
    stop = asyncio.Event()
    probing = asyncio.create_task(probe(port, stop))
    answers = await flood(port, request, seconds, rate)
    stop.set()
    print(f"{rate:.0f}/s ", told(answers, seconds))
    print("health  ", told(await probing, seconds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    settings = {"WEB_CONCURRENCY": str(arguments.workers)}
    with tempfile.TemporaryDirectory() as folder, running_server(Path(folder), settings) as server:
        asyncio.run(measure(int(server.url.rpartition(":")[2]), arguments.rows, arguments.seconds))


if __name__ == "__main__":
    main()
