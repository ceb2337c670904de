"""The published vectors in `vectors/`: what another implementation must reproduce, and what it must refuse.

`python -m tests.common.secagg.test_vectors` writes them anew; a change to one is a change of the protocol, and of its version.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.errors import IntegrityError
from common.files import write_atomic
from common.secagg import wire
from common.secagg.graph import Graph, plan
from common.secagg.keys import AgreementKey, Session, commitment, seal, unseal
from common.secagg.packing import pack_bits, unpack_bits
from common.secagg.prg import expand
from common.secagg.ring import Ring
from common.secagg.roster import check_directory
from common.secagg.shamir import combine, split
from common.secagg.wire import Advertisement, Directory, MaskedInput, Terms, Unmasking, WireMessage
from tests.common.secagg.rehearsal import Rehearsal, Stream

FOLDER = Path(__file__).parent / "vectors"
ONE, TWO = b"\x01" * 32, b"\x02" * 32
SESSION = Session("run", 3, b"\x0a" * 32, b"\x0b" * 32)
TYPES: list[type[WireMessage]] = [
    wire.Terms,
    wire.Advertisement,
    wire.Directory,
    wire.Shares,
    wire.Delivery,
    wire.MaskedInput,
    wire.Survivors,
    wire.Confirmation,
    wire.Quorum,
    wire.Unmasking,
]


def prg_vectors() -> dict[str, Any]:
    seeds = [bytes(32), bytes(range(32)), b"\xff" * 32]
    return {"masks": [{"seed": seed.hex(), "values": expand(seed, 6).tolist()} for seed in seeds]}


def ring_vectors() -> dict[str, Any]:
    values = [0.0, 0.5, -0.5, 1.0, -1.0, 7.0, -7.0, 0.3, -0.3]
    cases = []
    for cohort, clip in ((3, 1.0), (10, 0.5), (1000, 4.0)):
        ring, key = Ring(cohort, clip), hashlib.sha256(b"rounding").digest()
        encoded = ring.encode(np.array(values), lambda _, key=key: key)  # type: ignore[misc]
        cases.append(
            {"cohort": cohort, "clip": clip, "largest": ring.largest, "rounding_key": key.hex(), "ring": encoded.tolist()}
        )
    return {"values": values, "cases": cases}


def packing_vectors() -> dict[str, Any]:
    values = np.array([0, 1, 5, 2**16, 2**20 - 1, 7], dtype=np.uint32)
    good = [{"width": width, "bytes": pack_bits(values, width).hex()} for width in (20, 21, 26, 32)]
    bad = [
        {"why": "a byte too few", "width": 21, "bytes": good[1]["bytes"][:-2]},
        {"why": "a byte too many", "width": 21, "bytes": good[1]["bytes"] + "00"},
        {"why": "the last byte is not filled up with zeros", "width": 21, "bytes": good[1]["bytes"][:-2] + "c0"},
    ]
    return {"values": values.tolist(), "good": good, "bad": bad}


def shamir_vectors() -> dict[str, Any]:
    secret, points, random = bytes(range(32)), [1, 2, 5, 9], Stream(1)
    shares = split([secret], points, 3, random)[0]
    good = {"secret": secret.hex(), "threshold": 3, "points": points, "shares": [share.hex() for share in shares]}
    first = [share.hex() for share in shares[:3]]
    bad = [
        {"why": "a point twice", "points": [1, 1, 5], "shares": first},
        {"why": "point zero", "points": [0, 2, 5], "shares": first},
        {"why": "a share that is too short", "points": [1, 2, 5], "shares": [*first[:2], first[2][2:]]},
        {"why": "no field element", "points": [1, 2, 5], "shares": [*first[:2], "7fffffff" + first[2][8:]]},
    ]
    return {"prime": 2**31 - 1, "good": good, "bad": bad}


def key_vectors() -> dict[str, Any]:
    alice, bob = AgreementKey.from_raw(bytes(range(32))), AgreementKey.from_raw(bytes(range(32, 64)))
    key, shares = alice.sealing_key(bob.public, SESSION, ONE, TWO), bytes(range(72))
    sealed = seal(key, shares, SESSION, ONE, TWO, Stream(2))
    return {
        "session": {"run": "run", "round": 3, "terms": SESSION.terms.hex(), "directory": SESSION.directory.hex()},
        "identities": [ONE.hex(), TWO.hex()],
        "secrets": [alice.raw.hex(), bob.raw.hex()],
        "public": [alice.public.hex(), bob.public.hex()],
        "mask_seed": alice.mask_seed(bob.public, SESSION, ONE, TWO).hex(),
        "sealing_key_first_to_second": key.hex(),
        "shares": shares.hex(),
        "sealed": sealed.hex(),
        "commitment_of_first_secret_by_first": commitment(alice.raw, SESSION, ONE).hex(),
        "bad_sealed": [
            {"why": "altered", "sealed": (sealed[:-1] + bytes([sealed[-1] ^ 1])).hex()},
            {"why": "cut short", "sealed": sealed[:-1].hex()},
            {"why": "for the other direction", "sealed": seal(key, shares, SESSION, TWO, ONE, Stream(2)).hex()},
        ],
        "bad_public": [{"why": "a point of low order", "public": bytes(32).hex()}],
    }


def graph_vectors() -> dict[str, Any]:
    plans = [vars(plan(members)) for members in (3, 4, 10, 100, 256, 257, 300, 500, 1000, 2000)]
    seed = hashlib.sha256(b"graph").digest()
    graph = Graph(plan(300), seed)
    edges = {str(member): sorted(graph.neighbours(member)) for member in (0, 150, 299)}
    return {"plans": plans, "neighbours": {"members": 300, "seed": seed.hex(), "of": edges}}


def round_vectors() -> dict[str, Any]:
    """Four devices with known secrets; the last one drops out after it has shared. All messages of the round, and bent ones."""
    round_ = Rehearsal(4, length=5, run="vectors", number=2, seed=3, width=21)
    round_.advertised()
    round_.shared()
    round_.masked({3})
    round_.confirmed()
    unmaskings = {member: round_.clients[member].unmask(round_.quorum) for member in range(3)}
    for message in unmaskings.values():
        round_.server.add_unmasking(message)
    first = round_.advertisements[0]
    lists, masked = round_.lists[0], round_.inputs[0]
    entries = round_.directory.entries
    swapped = ((0, entries[1][1]), (1, entries[0][1]), *entries[2:])
    return {
        "identity_seeds": [key.private.private_bytes_raw().hex() for key in round_.keys],
        "secrets_of_0": {
            "mask_key": round_.clients[0]._mask_key.raw.hex(),
            "share_key": round_.clients[0]._share_key.raw.hex(),
            "seed": round_.clients[0]._seed.hex(),
        },
        "vectors": [round_.vectors[member].tolist() for member in range(4)],
        "messages": {
            "terms": round_.terms.encode().hex(),
            "advertisements": [message.encode().hex() for message in round_.advertisements.values()],
            "directory": round_.directory.encode().hex(),
            "shares": [message.encode().hex() for message in round_.shares.values()],
            "deliveries": [message.encode().hex() for message in round_.deliveries.values()],
            "masked": [message.encode().hex() for message in round_.inputs.values()],
            "survivors": [message.encode().hex() for message in round_.lists.values()],
            "quorum": round_.quorum.encode().hex(),
            "unmaskings": [message.encode().hex() for message in unmaskings.values()],
        },
        "sum": round_.server.finish().total.tolist(),
        "bad_bytes": [
            {"why": "cut short", "type": "Advertisement", "bytes": first.encode()[:-1].hex()},
            {"why": "a byte too many", "type": "Advertisement", "bytes": first.encode().hex() + "00"},
            {"why": "another version", "type": "Advertisement", "bytes": "454d534101" + first.encode()[5:].hex()},
            {"why": "another type", "type": "Confirmation", "bytes": first.encode().hex()},
            {"why": "members not ascending", "type": "Survivors", "bytes": lists.encode()[:6].hex() + "000200010000" + "0000"},
            {"why": "a member twice", "type": "Survivors", "bytes": lists.encode()[:6].hex() + "000200010001" + "0000"},
            {"why": "more values than bytes", "type": "MaskedInput", "bytes": masked.encode()[:73].hex() + "ffffffff00000000"},
            {
                "why": "both shares of one member",
                "type": "Unmasking",
                "bytes": b"EMSA\x02\x0a".hex() + "0000" + 2 * ("00010001" + "00" * 36),
            },
            {"why": "an empty name of the run", "type": "Terms", "bytes": b"EMSA\x01\x01".hex() + "00" + "00" * 42},
        ],
        "bad_directories": [
            {"why": "two members' keys exchanged", "bytes": Directory(swapped).encode().hex()},
            {
                "why": "a signature with one bit turned",
                "bytes": Directory(((0, entries[0][1][:-1] + bytes([entries[0][1][-1] ^ 1])), *entries[1:])).encode().hex(),
            },
            {"why": "a member beyond the cohort", "bytes": Directory((*entries, (4, entries[3][1]))).encode().hex()},
            {
                "why": "keys of another round",
                "bytes": Directory(Rehearsal(4, length=5, run="vectors", number=3, seed=3, width=21).advertised().entries)
                .encode()
                .hex(),
            },
        ],
    }


def test_published_packed_values_unpack_and_bad_ones_are_refused() -> None:
    vectors = stored("packing")
    for good in vectors["good"]:
        assert unpack_bits(bytes.fromhex(good["bytes"]), 6, good["width"]).tolist() == vectors["values"]
    for bad in vectors["bad"]:
        with pytest.raises(IntegrityError):
            unpack_bits(bytes.fromhex(bad["bytes"]), 6, bad["width"])


MAKERS = {
    "packing": packing_vectors,
    "prg": prg_vectors,
    "ring": ring_vectors,
    "shamir": shamir_vectors,
    "keys": key_vectors,
    "graph": graph_vectors,
    "round": round_vectors,
}


def stored(name: str) -> Any:
    return json.loads((FOLDER / f"{name}.json").read_text())


@pytest.mark.parametrize("name", MAKERS)
def test_the_published_vectors_are_what_the_protocol_does(name: str) -> None:
    assert json.loads(json.dumps(MAKERS[name]())) == {key: value for key, value in stored(name).items() if key != "version"}
    assert stored(name)["version"] == wire.VERSION


def test_the_published_shares_combine_and_the_bad_ones_do_not() -> None:
    vectors = stored("shamir")
    good = vectors["good"]
    for chosen in ([0, 1, 2], [3, 1, 0], [1, 2, 3]):
        shares = [bytes.fromhex(good["shares"][i]) for i in chosen]
        assert combine(np.array([[good["points"][i] for i in chosen]]), [shares]) == [bytes.fromhex(good["secret"])]
    for bad in vectors["bad"]:
        with pytest.raises(IntegrityError):
            combine(np.array([bad["points"]]), [[bytes.fromhex(share) for share in bad["shares"]]])


def test_the_published_bad_ciphertexts_and_keys_are_refused() -> None:
    vectors = stored("keys")
    key = bytes.fromhex(vectors["sealing_key_first_to_second"])
    assert unseal(key, bytes.fromhex(vectors["sealed"]), SESSION, ONE, TWO) == bytes.fromhex(vectors["shares"])
    for bad in vectors["bad_sealed"]:
        with pytest.raises(IntegrityError):
            unseal(key, bytes.fromhex(bad["sealed"]), SESSION, ONE, TWO)
    for bad in vectors["bad_public"]:
        with pytest.raises(IntegrityError):
            AgreementKey.from_raw(ONE).mask_seed(bytes.fromhex(bad["public"]), SESSION, ONE, TWO)


@pytest.mark.parametrize(
    "bad", stored("round")["bad_bytes"] if (FOLDER / "round.json").exists() else [], ids=lambda bad: bad["why"]
)
def test_published_bad_bytes_are_refused(bad: dict[str, str]) -> None:
    kind = next(kind for kind in TYPES if kind.__name__ == bad["type"])
    with pytest.raises(IntegrityError):
        kind.decode(bytes.fromhex(bad["bytes"]))


def test_published_bad_directories_are_refused_and_the_good_one_holds() -> None:
    vectors = stored("round")
    terms = Terms.decode(bytes.fromhex(vectors["messages"]["terms"]))
    assert len(check_directory(terms, Directory.decode(bytes.fromhex(vectors["messages"]["directory"])))) == 4
    for bad in vectors["bad_directories"]:
        with pytest.raises(IntegrityError):
            check_directory(terms, Directory.decode(bytes.fromhex(bad["bytes"])))


def test_the_published_round_adds_up() -> None:
    vectors = stored("round")
    total = np.array(vectors["vectors"][:3], dtype=np.uint64).sum(axis=0) % 2**21
    assert vectors["sum"] == total.tolist()
    assert Advertisement.decode(bytes.fromhex(vectors["messages"]["advertisements"][1])).member == 1
    assert MaskedInput.decode(bytes.fromhex(vectors["messages"]["masked"][2])).member == 2
    assert [m for m, _ in Unmasking.decode(bytes.fromhex(vectors["messages"]["unmaskings"][0])).keys] == [3]


if __name__ == "__main__":
    for name, make in MAKERS.items():
        write_atomic(FOLDER / f"{name}.json", (json.dumps({"version": wire.VERSION, **make()}, indent=1) + "\n").encode())
