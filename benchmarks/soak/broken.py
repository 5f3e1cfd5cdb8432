"""The ways in which messages and files are broken, and what the ledger has to say about each.

Belongs here: one value a way. Doesn't: how many there are of each (`benchmarks.soak.population`), or judging what came
out (`benchmarks.soak.oracle`).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from arrivals.states import State
from benchmarks.soak.files import SoakFiles, described, product_sidecar
from benchmarks.soak.population import PRODUCT_DETECTORS, Product, product_type
from drp_tasks.camera import INSTRUMENT
from simulator.messages import Announcement, DeliveredFile, FileKind, announce

HUGE_BYTES = 10 * 2**20
MANY_HUGE = 20
"""So many messages of ten megabytes are enough; further ones are as much too large as need be."""

_KEYS = {"dst_url": "dst-url"}
_JUST_TOO_LARGE = 2**20 + 1
_BEYOND_GOOD_PRODUCTS = 2 * PRODUCT_DETECTORS * 100_000


@dataclass(frozen=True, slots=True)
class Draft:
    """What a broken message is made from.

    Parameters
    ----------
    files
        Where its file goes, if it has one.
    announcement
        How the site's files are announced.
    exposure
        What it is about.
    number
        Which of all broken messages it is.
    """

    files: SoakFiles
    announcement: Announcement
    exposure: int
    number: int

    @property
    def product(self) -> Product:
        """A product of an exposure, whose dataset is nobody else's."""
        return Product(
            self.files.population.visits[self.exposure], _BEYOND_GOOD_PRODUCTS + 2 * PRODUCT_DETECTORS * self.number
        )

    def good(self, way: str, **reference: Any) -> DeliveredFile:
        """Deliver a product of its own name, whose reference has other values where given."""
        document = json.loads(product_sidecar(self.product))
        document["datasetType"]["name"] = product_type(0)
        document |= reference
        content = f"content: {self.number}\n".encode()
        file = described(FileKind.PRODUCT, f"broken/{way}/{self.number}.yaml", content, json.dumps(document))
        self.files.place(file.name, content)
        return file

    def raw(self, way: str, change: Callable[[bytes], bytes]) -> DeliveredFile:
        """Deliver a raw that says nothing of itself but what is in it, with a changed content."""
        population = self.files.population
        exposure = next(e for e in range(population.exposures) if not population.is_zipped(e))
        raw = self.files.file(exposure, population.raw_roles(exposure).start)
        content = change(self.files.path(raw).read_bytes())
        file = described(FileKind.RAW, f"broken/{way}/{self.number}.fits", content)
        self.files.place(file.name, content)
        return file

    def say(self, file: DeliveredFile, **payload: Any) -> bytes:
        """Announce a file, with other values in the payload where given."""
        return changed(message_of(file, self.announcement), **payload)

    def url(self, file: DeliveredFile) -> str:
        """Where a file is announced to lie."""
        return f"{self.announcement.prefix}/{file.scope}/{file.name}"


@dataclass(frozen=True, slots=True)
class Way:
    """A way to be broken.

    Parameters
    ----------
    name
        For people.
    reason
        Regular expression that occurs in the ledger's reason.
    make
        The message, and its file where it needs one.
    states
        Where its row may end.
    understood
        Whether the message itself can be read.
    """

    name: str
    reason: str
    make: Callable[[Draft], bytes]
    states: frozenset[State] = frozenset({State.QUARANTINED})
    understood: bool = True


def message_of(file: DeliveredFile, announcement: Announcement) -> bytes:
    """Announce one file, once."""
    once = replace(announcement, duplicate_share=0.0, submitted_share=0.0)
    [message] = announce([file], once, _NO_DISORDER)
    return message.value


def changed(value: bytes, **payload: Any) -> bytes:
    """Change values of a message's payload, whose ``dst-url`` is no Python name."""
    event = json.loads(value)
    event["payload"] |= {_KEYS.get(key, key): item for key, item in payload.items()}
    return json.dumps(event).encode()


def in_legacy_form(value: bytes) -> bytes:
    """Write a product's message as Hermes did once: flags for kinds, texts for nothing, calls for times."""
    event = json.loads(value)
    payload = event["payload"]
    reference = json.loads(payload["rubin_sidecar"])
    reference["datasetType"]["dimensions"] = {"names": reference["datasetType"]["dimensions"]}
    payload = {key: "None" if item is None else item for key, item in payload.items()}
    payload |= {"rubin_butler": 1, "rubin_sidecar": reference}
    created = datetime.fromisoformat(event["created_at"])
    call = f"datetime.datetime({created.year}, {created.month}, {created.day}, {created.hour}, {created.minute})"
    return json.dumps(event | {"payload": payload, "created_at": call}).encode()


def _announced(way: str, **payload: Any) -> Callable[[Draft], bytes]:
    return lambda draft: draft.say(draft.good(way), **payload)


def _referred(way: str, **reference: Any) -> Callable[[Draft], bytes]:
    return lambda draft: draft.say(draft.good(way, **reference))


def _cut(draft: Draft) -> bytes:
    value = draft.say(draft.good("cut"))
    return value[: len(value) // 2]


def _huge(draft: Draft) -> bytes:
    few = draft.number // draft.files.population.ways < MANY_HUGE
    return b'{"event_type": "' + b"x" * (HUGE_BYTES if few else _JUST_TOO_LARGE) + b'"}'


def _climbing(draft: Draft) -> bytes:
    file = draft.good("climbing")
    return draft.say(file, dst_url=f"{draft.announcement.prefix}/{file.scope}/../../../etc/passwd")


def _elsewhere(draft: Draft) -> bytes:
    file = draft.good("elsewhere")
    return draft.say(file, dst_url=f"davs://elsewhere.example:443/{file.scope}/{file.name}")


def _stray(draft: Draft) -> bytes:
    file = draft.good("stray")
    return draft.say(file, dst_url=f"file://{draft.url(file)}")


def _missing(draft: Draft) -> bytes:
    file = draft.good("missing")
    draft.files.path(file).unlink()
    return draft.say(file)


def _truncated(draft: Draft) -> bytes:
    file = draft.good("truncated")
    path = draft.files.path(file)
    path.write_bytes(path.read_bytes()[:-1])
    return draft.say(file)


def _rotten(draft: Draft) -> bytes:
    file = draft.good("rotten")
    path = draft.files.path(file)
    path.write_bytes(path.read_bytes().upper())
    return draft.say(file)


def _another_type(**changes: Any) -> Callable[[Draft], bytes]:
    def make(draft: Draft) -> bytes:
        known = json.loads(product_sidecar(draft.product))["datasetType"] | {"name": product_type(0)}
        return draft.say(draft.good("type", datasetType=known | changes))

    return make


def _unreadable(draft: Draft) -> bytes:
    return draft.say(draft.raw("unreadable", lambda content: b"No FITS file at all.\n" * 200))


def _no_such_slot(draft: Draft) -> bytes:
    return draft.say(draft.raw("slot", lambda content: content.replace(b"'S00     '", b"'S77     '")))


def _other_content(draft: Draft) -> bytes:
    population = draft.files.population
    file = draft.files.file(draft.exposure, population.files(draft.exposure) - 1)
    return draft.say(replace(file, size=file.size + 1 + draft.number))


def _from_the_future(draft: Draft) -> bytes:
    tomorrow = datetime.now(UTC).replace(tzinfo=None) + timedelta(days=400)
    return draft.say(draft.good("future"), transferred_at=str(tomorrow))


class _NoDisorder:
    """Stands in for random numbers where one message leaves nothing to shuffle."""

    def choice(self, count: int, *, size: int, replace: bool) -> list[int]:
        """Choose nothing."""
        return list(range(size))

    def permutation(self, count: int) -> range:
        """Leave the order as it is."""
        return range(count)


_NO_DISORDER: Any = _NoDisorder()
_NO_SUCH_DETECTOR = {"dataId": {"instrument": INSTRUMENT, "detector": 77, "exposure": 2026110100001}}
_OTHER_INSTRUMENT = {"dataId": {"instrument": "LATISS", "detector": 0, "exposure": 2026110100001}}

WAYS = (
    Way("empty", "message is empty", lambda draft: b"", understood=False),
    Way("not JSON", "not JSON", lambda draft: f"hello, this is message {draft.number}".encode(), understood=False),
    Way("cut in the middle", "not JSON", _cut, understood=False),
    Way("not UTF-8", "not UTF-8", lambda draft: b"\xff\xfe" + f"{draft.number}".encode("utf-16"), understood=False),
    Way("ten megabytes", "no Hermes message is larger", _huge, understood=False),
    Way(
        "unknown rubin_butler", "unknown value 'sausage'", _announced("kind", rubin_butler="sausage"), understood=False
    ),
    Way("no sidecar", "without rubin_sidecar", _announced("bare", rubin_sidecar=""), understood=False),
    Way("unknown dataset type", "unknown dataset type", _another_type(name="nobody_knows_this")),
    Way("wrong storage class", "storage class NumpyArray", _another_type(storageClass="NumpyArray")),
    Way("sidecar of another instrument", "is of LATISS", _referred("instrument", **_OTHER_INSTRUMENT)),
    Way("path that climbs", "no plain path", _climbing),
    Way("path elsewhere", "outside the prefixes", _elsewhere),
    Way("stray file://", "file:// before the URL", _stray),
    Way("file missing", "file is not there", _missing, frozenset({State.WAITING, State.QUARANTINED})),
    Way("file truncated", "bytes, but .* were announced", _truncated),
    Way("wrong checksum", "has adler32 .* was announced", _rotten),
    Way("header unreadable", "header can't be read", _unreadable),
    Way("raw of no detector", "detector", _no_such_slot),
    Way("product of no detector", "no detector", _referred("detector", **_NO_SUCH_DETECTOR)),
    Way("same DID, other content", "other content|bytes, but .* were announced", _other_content),
    Way("from the future", "from the future", _from_the_future),
)
"""All of them."""
