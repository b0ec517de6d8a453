"""Measures both workers: all activities are stored first and a worker is started then, so that the server does the same for each.

CPU time and memory are those of the worker's process, from /proc. What a worker uses on an empty queue until it is ready is told by itself
and taken off the rest.
"""

import argparse
import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from datetime import timedelta
from pathlib import Path

from temporalio.client import Client
from temporalio.common import RetryPolicy

HERE = Path(__file__).parent
QUESTION = {"user_id": "8c1e2d8a-1564-4e95-8b14-ea14522fcf61", "connection_qualified_name": "default/snowflake/1234567890"}
AT_ONCE = 40
TICK = os.sysconf("SC_CLK_TCK")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Process:
    """A process whose output is read all the time, and the lines of it until it is ready."""

    def __init__(self, command, environment, ready):
        self.child = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.said = []
        for line in self.child.stdout:
            self.said.append(line)
            if ready in line:
                break
        else:
            sys.exit(f"{command[0]} ended: {''.join(self.said)}")
        threading.Thread(target=lambda: all(self.child.stdout), daemon=True).start()

    def cpu(self):
        """Seconds of CPU time, and of those that the process has waited for."""
        fields = Path(f"/proc/{self.child.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return sum(map(int, fields[11:15])) / TICK

    def megabytes(self, name):
        """Memory by its name in /proc: VmHWM, the most that was resident; VmRSS, what is now; RssAnon, of that without mapped files."""
        status = Path(f"/proc/{self.child.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith(f"{name}:"))
        return int(line.split()[1]) / 1000

    def end(self):
        self.child.kill()
        self.child.wait()


async def store(client, task_queue, number):
    gate = asyncio.Semaphore(AT_ONCE)

    async def one():
        async with gate:
            return await client.start_activity(
                "publish_preflight", QUESTION, id=str(uuid.uuid4()), task_queue=task_queue, result_type=dict,
                start_to_close_timeout=timedelta(seconds=60), heartbeat_timeout=timedelta(seconds=30),
                retry_policy=RetryPolicy(maximum_attempts=3))

    return await asyncio.gather(*(one() for _ in range(number)))


async def drained(handles):
    """Until all have ended, and as they should."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(handle):
        async with gate:
            return await handle.result()

    for verdict in await asyncio.gather(*(one(handle) for handle in handles)):
        assert verdict["status"] == "passed", verdict


async def measure(client, start, server, number):
    idle = start(f"idle-{uuid.uuid4()}")
    await asyncio.sleep(2)
    begin = idle.cpu()
    idle.end()
    task_queue = f"bench-{uuid.uuid4()}"
    handles = await store(client, task_queue, number)
    of_server, since = server.cpu(), time.monotonic()
    worker = start(task_queue)
    await drained(handles)
    took = time.monotonic() - since
    found = {"begin": begin, "cpu": worker.cpu() - begin, "peak": worker.megabytes("VmHWM"), "own": worker.megabytes("RssAnon"),
             "took": took, "server": server.cpu() - of_server}
    worker.end()
    return found


async def soak(client, start, asked):
    """One worker of ours for a long time: what it keeps of activities that are over shows in its memory."""
    task_queue, done, samples = f"soak-{uuid.uuid4()}", 0, []
    worker, began = start(task_queue), time.monotonic()
    most, longest = asked.soak, asked.minutes * 60
    print(f"a soak of {most} activities or {asked.minutes} minutes, whichever is first\n| minutes | activities | resident MB |\n|---|---|---|")
    while done < most and time.monotonic() - began < longest:
        await drained(await store(client, task_queue, 500))
        done += 500
        samples.append((time.monotonic() - began, done, worker.megabytes("VmRSS")))
        if done % 5000 == 0:
            print(f"| {samples[-1][0] / 60:.1f} | {done} | {samples[-1][2]:.1f} |", flush=True)
    ended = samples[-1][0]
    tenth = next(resident for took, count, resident in samples if count * 10 >= most or took * 10 >= ended)
    worker.end()
    print(f"\n{done} activities in {ended / 60:.1f} minutes; resident after the first tenth {tenth:.1f} MB, at the end {samples[-1][2]:.1f} MB: "
          f"{samples[-1][2] / tenth:.2f} times")


async def main():
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("temporal", help="the server's program")
    asked.add_argument("program", help="a build of iolaus with the feature temporal")
    asked.add_argument("--activities", type=int, default=1000)
    asked.add_argument("--rounds", type=int, default=2, help="every other one begins with the other worker")
    asked.add_argument("--soak", type=int, help="instead: so many activities on one worker of ours, as in 100000")
    asked.add_argument("--minutes", type=float, default=30, help="but no longer than this")
    asked = asked.parse_args()
    with tempfile.TemporaryDirectory() as home:
        port, clean = free_port(), {"HOME": home, "PATH": os.environ["PATH"], "IOLAUS_HTTP__LISTEN": ""}
        address = f"127.0.0.1:{port}"
        command = ["server", "start-dev", "--headless", "--ip", "127.0.0.1", "--log-level", "error", "--port", str(port)]
        command += ["--ui-port", str(free_port()), "--db-filename", f"{home}/temporal.db"]
        running = [Process([asked.temporal, *command], clean, "Temporal Server")]
        try:
            sandbox = Process([asked.program, "sandbox", "--listen", "127.0.0.1:0", "--output", "json"], clean, "base_url")
            running.append(sandbox)
            tenant = json.loads(sandbox.said[-1])["base_url"]
            clean |= {"ATLAN_BASE_URL": tenant, "ATLAN_API_KEY": "sandbox-api-token"}
            ours = clean | {"IOLAUS_HOST__KIND": "temporal", "IOLAUS_TEMPORAL__ADDRESS": address}

            def rust(task_queue):
                return Process([asked.program, "worker"], ours | {"IOLAUS_TEMPORAL__TASK_QUEUE": task_queue}, "the worker is ready")

            def python(task_queue):
                return Process([sys.executable, "-B", HERE / "worker.py", address, task_queue], clean, "the worker is ready")

            if asked.soak:
                return await soak(await Client.connect(address), rust, asked)
            await compare(await Client.connect(address), {"Iolaus": rust, "Python": python}, running[0], asked)
        finally:
            for process in reversed(running):
                process.end()


async def compare(client, workers, server, asked):
    number = asked.activities
    print(f"{asked.rounds} rounds of {number} activities, stored before the worker starts; one server, {os.cpu_count()} cores")
    print("| worker | round | CPU s per 1,000 | CPU s until ready and 2 s idle | peak MB | of files not, at the end | seconds | server's CPU s |")
    print("|---|---|---|---|---|---|---|---|")
    found = {name: [] for name in workers}
    for turn in range(asked.rounds):
        for name in list(workers)[:: -1 if turn % 2 else 1]:
            one = await measure(client, workers[name], server, number)
            found[name].append(one)
            print(f"| {name} | {turn + 1} | {one['cpu'] * 1000 / number:.2f} | {one['begin']:.2f} | {one['peak']:.1f} | "
                  f"{one['own']:.1f} | {one['took']:.1f} | {one['server']:.1f} |", flush=True)
    of = {name: (sum(one["cpu"] for one in rounds), *(max(one[memory] for one in rounds) for memory in ("peak", "own")))
          for name, rounds in found.items()}
    (cpu, peak, own), (their_cpu, their_peak, their_own) = of["Iolaus"], of["Python"]
    print(f"\nPython to Iolaus: {their_cpu / cpu:.2f} times the CPU time per activity, {their_peak / peak:.2f} times the memory at its peak, "
          f"{their_own / own:.2f} times of it without mapped files")
    print("The seconds are the server's: it is what bounds them, and no measure of a worker.")


asyncio.run(main())
