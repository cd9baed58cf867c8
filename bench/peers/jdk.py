"""Kafka Streams: its jars fetched as the broker's are, its program (streams/Hop.java) compiled at bench time.

How it was tuned, in CPU s per million events of one run each, which tell more than events/s on a busy machine: the
Processor API on byte arrays with a reader and writer for the one schema; linger 5 ms (0 doubles it: 6.0), batches of
1 MB; no compression (lz4 +0.4); queues and polls of 1,000 records, its defaults (3.3; 10,000 to 50,000 records that
wait grow old in the heap: 3.7 to 4.1); a gigabyte of heap, mostly young, and the parallel collector; a warm-up of
1,000,000 events, since Java compiles what is hot: by thread, on a very busy machine, its compiler took 2.7 s a million
up to 500,000 events, 1.8 up to 700,000, .8 at 1,000,000 (the stream thread 1.7, the sender .6, collection under .1),
and 2 to 3 again up to 1,500,000. Its quick compiler alone: 7 to 8. Not settled, the machine was too busy: no checks of
checksums, a commit every 500 ms, compact headers, two gigabytes touched ahead. It runs in the broker's own Java,
the newest.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from bench.peers.arena import Task, UnavailableError
from schemas.errors import SluiceError
from sluice.stack import jars, java

HERE = Path(__file__).parent
COMMIT_MS = 100

SETTINGS = {
    "processing.guarantee": "exactly_once_v2",
    "num.stream.threads": "1",
    "auto.offset.reset": "earliest",
    "enable.metrics.push": "false",
    "consumer.max.partition.fetch.bytes": str(4 << 20),
    "consumer.fetch.max.bytes": str(32 << 20),
    "consumer.receive.buffer.bytes": str(1 << 20),
    "producer.linger.ms": "5",
    "producer.batch.size": str(1 << 20),
    "producer.buffer.memory": str(256 << 20),
    "producer.send.buffer.bytes": str(1 << 20),
}
JVM = ["-Xms1g", "-Xmx1g", "-Xmn600m", "-XX:+UseParallelGC"]


def locked() -> list[jars.Jar]:
    """The pinned jars that the broker does not bring."""
    rows = [
        line.split() for line in (HERE / "streams.lock").read_text().splitlines() if not line.startswith("#")
    ]
    return [jars.Jar(sha256, int(size), coordinate) for sha256, size, coordinate in rows]


def class_path() -> list[Path]:
    """Kafka Streams and its client first, then what it needs of the broker's. Raises UnavailableError."""
    wanted = locked()
    folder = jars.cache_folder().parent / "peers" / "streams"
    try:
        jars.fetch(folder, [jar for jar in wanted if not (folder / jar.name).exists()])
        jars.check_closed(folder)
        others = [jar for jar in jars.class_path() if not jar.name.startswith("kafka-clients-")]
    except SluiceError as problem:
        raise UnavailableError(f"{problem.message}") from None
    for jar in wanted:
        file = folder / jar.name
        with file.open("rb") as stream:
            if hashlib.file_digest(stream, "sha256").hexdigest() != jar.sha256:
                file.unlink()
                raise UnavailableError(f"{jar.name} had a checksum other than the pinned one and was deleted")
    return [*(folder / jar.name for jar in wanted), *others]


def command(task: Task, commit_ms: int = COMMIT_MS) -> list[str]:
    """Compile, write the settings, and say how it is started. Raises UnavailableError where there is no JDK."""
    home = os.environ.get("JAVA_HOME")
    compiler = shutil.which("javac") or (shutil.which("javac", path=f"{home}/bin") if home else None)
    if compiler is None:
        raise UnavailableError("no JDK here: javac is neither on the path nor in JAVA_HOME")
    path = ":".join(map(str, class_path()))
    words = [
        compiler,
        "--release",
        "17",
        "-cp",
        path,
        "-d",
        str(task.folder),
        str(HERE / "streams" / "Hop.java"),
    ]
    made = subprocess.run(words, capture_output=True, text=True, check=False)
    if made.returncode:
        raise UnavailableError(f"javac ended with {made.returncode}: {made.stderr[-500:]}")
    client = task.admin
    secret = client.password.get_secret_value()
    login = "org.apache.kafka.common.security.scram.ScramLoginModule"
    settings = {
        **SETTINGS,
        "commit.interval.ms": str(commit_ms),
        "application.id": task.group,
        "state.dir": str(task.folder / "state"),
        "bootstrap.servers": client.bootstrap,
        "security.protocol": client.protocol,
        "sasl.mechanism": client.mechanism,
        "sasl.jaas.config": f'{login} required username="{client.principal}" password="{secret}";',
        "bench.raw": task.contract.topics.raw,
        "bench.shared": task.contract.topics.shared,
        "bench.raw.id": str(task.raw_id),
        "bench.shared.id": str(task.shared_id),
    }
    file = task.folder / "hop.properties"
    file.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    runtime = java.find()
    options = list(JVM)
    if runtime.version >= 24:
        options += ["--enable-native-access=ALL-UNNAMED", "--sun-misc-unsafe-memory-access=allow"]
    return [str(runtime.executable), *options, "-cp", f"{task.folder}:{path}", "Hop", str(file)]
