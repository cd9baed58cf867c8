"""What a subscriber remembers of a task between runs: whose releases it takes, and the newest it has applied.

One JSON file, `$SLUICE_HOME/pins/<task>.json`. The order of releases holds within one cluster: after a stack was
purged and started anew, it begins again, while the pinned signer stays. Which cluster that is, the *signed* sources
say, never the broker: else a broker that calls itself another one could serve an old release again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from schemas.errors import ConfigurationError
from trainers.manifest import Manifest, RefusedError, Source, require_newer
from trainers.signing import KEY_BYTES, fingerprint, key_files, read_public


@dataclass(frozen=True, slots=True)
class Pin:
    """`public` is None until the first release is trusted (then `origin` is "first-use"). version 0: nothing
    applied. `past`: newest version by cluster, of all clusters that ever were; `sources`: offsets learned of each.
    """

    public: bytes | None
    origin: str  # argument | trainer | remembered | first-use
    version: int = 0
    release: str = ""
    past: Mapping[str, int] = field(default_factory=dict)
    sources: Mapping[Source, int] = field(default_factory=dict)

    def trust(self, public: bytes) -> Pin:
        """The pin after trust on first use; no change where a key is pinned already."""
        return self if self.public is not None else replace(self, public=public, origin="first-use")

    def require_acceptable(self, manifest: Manifest, *, starting: bool) -> None:
        """Newer than all before of its clusters; at start also the very release that was in use last. Raises
        RefusedError(not-newer).
        """
        if starting and manifest.release == self.release:
            return
        clusters = {cluster for cluster, _, _ in manifest.sources} or set(self.past)
        before = max((version for cluster, version in self.past.items() if cluster in clusters), default=0)
        if before:
            sources = {source: offset for source, offset in self.sources.items() if source[0] in clusters}
            require_newer(manifest, before, sources)
        elif manifest.version < 1:
            raise RefusedError("not-newer", "versions begin at 1")

    def applied(self, manifest: Manifest) -> Pin:
        clusters = {cluster for cluster, _, _ in manifest.sources}
        return replace(
            self,
            version=manifest.version,
            release=manifest.release,
            past={**self.past, **dict.fromkeys(clusters, manifest.version)},
            sources={**self.sources, **manifest.sources},
        )

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.public) if self.public else "none"


def open_pin(home: Path | None, task: str, public_key: bytes | Path | None = None) -> Pin:
    """The pin of a task: the argument's key, else the trainer's own file in this home, else what was
    remembered.

    Raises ConfigurationError where a file is damaged.
    """
    remembered = _read(_file(home, task)) if home else None
    base = remembered or Pin(None, "first-use")
    if public_key is not None:
        key = public_key if isinstance(public_key, bytes) else read_public(public_key)
        if len(key) != KEY_BYTES:
            raise ConfigurationError(
                f"A public key has {KEY_BYTES} bytes, this one {len(key)}.", "Pass the .pub file."
            )
        return replace(base, public=key, origin="argument")
    own = key_files(home, task)[1] if home else None
    if own is not None and own.exists():
        return replace(base, public=read_public(own), origin="trainer")
    return replace(base, origin="remembered") if base.public else base


def save_pin(home: Path, task: str, pin: Pin) -> bool:
    """Remember `pin`. False where the home cannot be written: then the next run trusts anew."""
    file = _file(home, task)
    record = {
        "public_key": pin.public.hex() if pin.public else None,
        "version": pin.version,
        "release": pin.release,
        "past": dict(sorted(pin.past.items())),
        "sources": [[*source, offset] for source, offset in sorted(pin.sources.items())],
    }
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(".part")
        part.write_text(json.dumps(record, indent=1))
        part.replace(file)
    except OSError:
        return False
    return True


def _file(home: Path, task: str) -> Path:
    return home / "pins" / f"{task}.json"


def _read(file: Path) -> Pin | None:
    if not file.exists():
        return None
    try:
        record: dict[str, Any] = json.loads(file.read_text())
        public = bytes.fromhex(record["public_key"]) if record["public_key"] else None
        sources = {(str(c), str(t), int(p)): int(o) for c, t, p, o in record["sources"]}
        return Pin(
            public,
            "remembered",
            int(record["version"]),
            str(record["release"]),
            {str(cluster): int(version) for cluster, version in record["past"].items()},
            sources,
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
        raise ConfigurationError(
            f"{file} is damaged ({type(problem).__name__}).",
            "Delete it to trust the next release's signer anew, or pass the trainer's .pub file.",
        ) from None
