"""Half an hour of load and faults: no accepted request is lost or answered wrongly, memory stays constant.

    python benchmarks/soak.py [--minutes 30] [--transport auto]

`kerve serve` serves a model at 80 % of its capacity (measured first, under the same conditions), while other
clients fill a queue, set short deadlines, cancel, send invalid requests and are killed, and while new
versions, broken versions and unloads alternate. At the end it drains under load. The exit code is 1 if an
invariant is violated: see `violations` and `Traffic.problems`.
"""

import argparse
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soak_changes
import soak_traffic
from soak_changes import Publisher
from soak_traffic import PATIENCE, Asker, Traffic, Versions

KERVE = Path(sys.executable).with_name("kerve")
SHARE = 0.8
# The loop iterations of a batch of `steady`, about 10 ms.
STEPS = 10_000
# The allowed growth of peak memory from the second quarter of the run to the last...
GROWTH = 1.05
# ...plus the memory of a version that is being loaded.
SLACK = 8 << 20
# The requests that wait when the server is terminated; fewer than the size of its queue.
ACCEPTED = 200


@dataclass
class Memory:
    """The server's resident memory, sampled four times a second."""

    process: "subprocess.Popen[str]"
    samples: list[int] = field(default_factory=list)

    def watch(self, over: threading.Event) -> None:
        """Sample until `over` is set."""
        while not over.wait(0.25):
            pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
            self.samples.append(int(pages) * 4096)

    def quarters(self) -> tuple[int, int]:
        """Return the peak memory in the second and in the last quarter."""
        quarter = len(self.samples) // 4
        return max(self.samples[quarter : 2 * quarter]), max(self.samples[-quarter:])


@contextmanager
def serving(
    repository: Path, transport: str, log: Path
) -> Iterator[tuple[str, str, "subprocess.Popen[str]"]]:
    """Run a server; yields its gRPC and HTTP addresses and its process."""
    command = [str(KERVE), "serve", "--repository", str(repository), "--grpc-port", "0", "--http-port", "-1"]
    command += ["--transport", transport, "--model-control-mode", "explicit", "--load-model", "*"]
    with (
        log.open("w") as stderr,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True) as process,
    ):
        try:
            assert process.stdout is not None
            ports = re.search(r"gRPC on (\S+) .*HTTP on ([^\s,]+)", process.stdout.readline())
            assert ports, f"no ready line; the log says: {log.read_text()}"
            yield ports[1], ports[2], process
        finally:
            process.kill()


def make_repository(folder: Path) -> Path:
    """Create the models: `steady` batches, `crowded` has a short queue, `guest` is unloaded and loaded."""
    steps = {"steady": STEPS, "crowded": STEPS // 4, "guest": STEPS // 10}
    for name, count in steps.items():
        soak_changes.publish(folder, name, 1, soak_changes.model(1, count))
    (folder / "steady" / "config.toml").write_text("max_batch_size = 4\n")
    (folder / "crowded" / "config.toml").write_text(
        "max_batch_size = 1\n[dynamic_batching.default_queue_policy]\nmax_queue_size = 4\n"
    )
    return folder


def violations(traffic: Sequence[Traffic], publisher: Publisher, memory: Memory, log: str) -> list[str]:
    """Return the violated invariants, and the expected events that did not occur."""
    found = [*publisher.problems, *(problem for each in traffic for problem in each.problems())]
    expected = ("loaded on request", "loaded after SIGHUP", "broken and refused", "unloaded and loaded")
    found += [f"not once: {name}" for name in (*expected, "clients killed") if not publisher.counts[name]]
    before, after = memory.quarters()
    if after > before * GROWTH + SLACK:
        found.append(f"memory grew from {before / 1e6:.1f} MB to {after / 1e6:.1f} MB")
    if begin := log.find("Traceback") + 1:
        found.append(f"there is a traceback in the server's log:\n{log[max(0, begin - 500) : begin + 3000]}")
    return found


def arrived(http: str) -> float:
    """Return the number of requests that the serving versions of `steady` have received, from /metrics."""
    with urllib.request.urlopen(f"http://{http}/metrics", timeout=PATIENCE) as answer:
        text = answer.read().decode()
    names = "kerve_queue_duration_seconds_count|kerve_queue_size"
    return sum(map(float, re.findall(rf'^(?:{names}){{model="steady",[^}}]*}} (\S+)$', text, re.MULTILINE)))


def drain(asker: Asker, traffic: Traffic, http: str, process: "subprocess.Popen[str]") -> list[str]:
    """Terminate the server while accepted requests wait; returns the problems."""
    before, patience = arrived(http), time.monotonic() + PATIENCE
    for _ in range(ACCEPTED):
        asker.ask()
    while arrived(http) < before + ACCEPTED and time.monotonic() < patience:
        pass
    process.send_signal(signal.SIGTERM)
    code = process.wait(PATIENCE)
    while traffic.pending and time.monotonic() < patience:
        time.sleep(0.01)
    return [] if code == 0 else [f"drain: exit code {code}"]


def report(
    traffic: Sequence[Traffic], counts: Counter[str], memory: Memory, facts: Sequence[tuple[str, str]]
) -> None:
    """Print the results, with a table in Markdown."""
    print("| requests | sent | answered | refused or ended, by code | wrong | lost | p50 ms | p99 ms |")
    print("|---|---|---|---|---|---|---|---|")
    for each in traffic:
        others = ", ".join(f"{code} {count}" for code, count in sorted(each.codes.items()) if code != "OK")
        p50, p99 = (
            (f"{value * 1e3:.1f}" for value in np.percentile(each.seconds, (50, 99)))
            if each.seconds
            else ("", "")
        )
        sent = each.codes.total() + each.pending
        print(
            f"| {each.name} | {sent} | {each.codes['OK']} | {others} "
            f"| {len(each.wrong)} | {each.pending} | {p50} | {p99} |"
        )
    before, after = memory.quarters()
    happened = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
    held = f"{before / 1e6:.1f} MB at most in the second quarter, {after / 1e6:.1f} MB in the last"
    for name, value in (*facts, ("meanwhile", happened), ("the server held", held)):
        print(f"{name}: {value}")


def soak(seconds: float, transport: str, folder: Path) -> list[str]:
    """Run the soak test; returns the violations."""
    over, log = threading.Event(), folder / "log"
    repository = make_repository(folder / "models")
    with serving(repository, transport, log) as (address, http, process):
        versions = {name: Versions() for name in ("steady", "crowded", "guest")}
        memory = Memory(process)
        threading.Thread(target=memory.watch, args=(over,), daemon=True).start()
        publisher = Publisher(repository, STEPS, versions["steady"], process)
        changes = soak_changes.start(address, publisher, min(2.0, seconds / 40), over)
        others = soak_traffic.start(address, versions, over)
        answered = frozenset(("OK",))
        steady = Traffic("steady", answered | {"RESOURCE_EXHAUSTED"}, answered)
        asker = Asker(address, "steady", versions["steady"], steady)
        capacity = soak_traffic.saturate(asker, 32, max(2.0, seconds / 20))
        end = threading.Timer(seconds, over.set)
        end.start()
        soak_traffic.poisson(asker, SHARE * capacity, over)
        for thread in changes:
            thread.join(PATIENCE)
        traffic = [steady, *others]
        patience = time.monotonic() + PATIENCE
        while any(each.pending for each in traffic) and time.monotonic() < patience:
            time.sleep(0.05)
        last = Traffic("drain", answered, answered)
        found = drain(Asker(address, "steady", versions["steady"], last), last, http, process)
        found += violations([*traffic, last], publisher, memory, log.read_text())
        rate = f"{capacity:.0f} requests/s, of which {SHARE:.0%} came for {seconds:.0f} s"
        report([*traffic, last], publisher.counts, memory, [("capacity with all of it", rate)])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--transport", default="auto")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = soak(options.minutes * 60, options.transport, Path(folder))
    for problem in found:
        print(f"VIOLATED {problem}")
    print("every invariant held" if not found else f"{len(found)} violations")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
