"""The broker's settings that do not concern security (security.py), its Java options and its log."""

from __future__ import annotations

HEAP_MB = 256

# Each for a reason: one node (replication 1, one partition for internal topics), quick fencing and take-over
# (docs/architecture.md rule 10), no topic behind anybody's back, and little memory: the cleaner alone takes 128 MiB
# of heap by default, 4 MiB hold 150,000 keys a pass; a thread that idles costs 100 KiB. What a topic may hold is looked
# at every half minute, not every five: in between, whoever may write may fill the disk.
NODE = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "auto.create.topics.enable": "false",
    "num.partitions": "1",
    "default.replication.factor": "1",
    "offsets.topic.num.partitions": "1",
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.num.partitions": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    "log.cleaner.dedupe.buffer.size": str(4 << 20),
    "log.retention.check.interval.ms": "30000",
    "group.coordinator.threads": "1",
    "share.coordinator.threads": "1",
    "background.threads": "2",
    "num.network.threads": "2",
    "num.io.threads": "4",
}

# Left at INFO: kafka.authorizer.logger, which says who was refused what. Down to WARN: what only lists settings (60 KB
# a start) or milliseconds.
LOG4J = """\
status = error
appender.file.type = RollingFile
appender.file.name = file
appender.file.fileName = {folder}/broker.log
appender.file.filePattern = {folder}/broker.%i.log
appender.file.layout.type = PatternLayout
appender.file.layout.pattern = %d{{ISO8601}} %p %m (%c{{1}})%n
appender.file.policies.type = Policies
appender.file.policies.size.type = SizeBasedTriggeringPolicy
appender.file.policies.size.size = 10MB
appender.file.strategy.type = DefaultRolloverStrategy
appender.file.strategy.max = 4
rootLogger.level = INFO
rootLogger.appenderRef.file.ref = file
logger.config.name = kafka.server.KafkaConfig
logger.config.level = WARN
logger.abstract.name = org.apache.kafka.common.config.AbstractConfig
logger.abstract.level = WARN
logger.slow.name = org.apache.kafka.controller.EventPerformanceMonitor
logger.slow.level = WARN
"""


def own(data: str, controller_port: int) -> dict[str, str]:
    """What differs from node to node: its data folder, and where its controller listens."""
    return {"controller.quorum.voters": f"1@127.0.0.1:{controller_port}", "log.dirs": data}


def properties(*parts: dict[str, str]) -> str:
    """The parts as the text of a properties file; later ones win."""
    merged: dict[str, str] = {}
    for part in parts:
        merged |= part
    return "".join(f"{name}={value}\n" for name, value in merged.items())


def java_options(java_version: int, config: str, logs: str) -> list[str]:
    """Options of the broker's Java: small, quick to start, dead rather than half alive when memory ends.

    The heap starts small and stays tight: 150 MB resident when idle, 160 after 1,500,000 records at 270,000/s
    (175 and 185 with the usual ratios).
    """
    options = [
        f"-Xmx{HEAP_MB}m",
        "-Xms24m",
        "-XX:MinHeapFreeRatio=20",
        "-XX:MaxHeapFreeRatio=40",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        "-XX:+ExitOnOutOfMemoryError",
        f"-XX:ErrorFile={logs}/java-crash.log",
        "-Djava.awt.headless=true",
        f"-Dlog4j2.configurationFile={config}/log4j2.properties",
    ]
    if java_version >= 24:  # silences warnings about what Kafka's own libraries do
        options += ["--enable-native-access=ALL-UNNAMED", "--sun-misc-unsafe-memory-access=allow"]
    return options
