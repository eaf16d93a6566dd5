"""Redaction: identities out, everything else as it was."""

import os
import pwd
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from warmspare.host.identity import GENERIC, identities
from warmspare.model.facts import (
    HOST,
    TEXT_LIMIT,
    Absent,
    Cause,
    Count,
    Fact,
    Known,
    Outcome,
    Proof,
    Readings,
    Standing,
)
from warmspare.model.redact import Identities, redact
from warmspare.model.snapshot import DEPTH_LIMIT, Reader, Snapshot, encode
from warmspare.model.transcript import Answer, Call, Failed, Gave, Listed, Ran, Said

AT = datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC)


class Deep(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A value inside a fact."""

    name: str
    kind: Literal["deep-kind"] = "deep-kind"


class Machine(Fact, frozen=True, kw_only=True):
    """A fact with a text wherever one may stand."""

    kind: Literal["kvm", "wsl2"]
    maybe: Literal["kvm", "wsl2"] | None
    name: str
    names: tuple[str, ...]
    seen: dict[str, str]
    deep: Deep
    deeper: tuple[Deep, ...]
    count: Count = 3


class Trial(Proof, frozen=True, kw_only=True):
    """A proof."""

    digest: str | None = None


READER = Reader([Machine, Trial])
WHO = Identities(hosts=("buildbox7", "buildbox7.lan"), users=("alice", "al"), key=b"secret of the machine")
UUID = "6ba7b810-9dad-11d1-80b4-00c04fd430c8"


def machine(text: str, kind: Literal["kvm", "wsl2"] = "kvm") -> Machine:
    deep = Deep(text)
    seen = {"place": text}
    return Machine(kind=kind, maybe=kind, name=text, names=("a", text), seen=seen, deep=deep, deeper=(deep,))


def snapshot(*answers: Answer, text: str = "", outcome: Outcome | None = None) -> Snapshot:
    """A snapshot with a text in every place, and answers."""
    entries: dict[tuple[str, str], Any] = {
        ("machine", HOST): Known(value=machine(text), standing=Standing.OBSERVED, at=AT, refs=(0,)),
        ("trial", HOST): Absent(cause=Cause.DENIED, detail=f"no: {text}"),
    }
    if outcome:
        entries["trial", HOST] = Known(value=Trial(outcome=outcome), standing=Standing.TRIED, at=AT)
    asked = ("cat", f"/sys/fs/cgroup/{text}/memory.max")
    calls = tuple(Call(verb="run", args=asked, answer=answer) for answer in (*answers, Said("")))
    return Snapshot(
        made_by="w", made_at=AT, redacted=False, readings=Readings(entries), transcript=calls, notes=(f"of {text}",)
    )


def answers(text: str) -> list[Answer]:
    """The text in every kind of answer."""
    return [
        Said(text),
        Listed((text, "other")),
        Ran(program=f"/opt/{text}/bin", status=0, stdout=f"out {text}\n", stderr=f"err: {text}\n"),
        Gave(text),
        Gave({"a": [1, {"b": text}], "c": (text,)}),
        Failed(cause=None, detail=f"no {text}"),
    ]


def redacted(made: Snapshot, who: Identities = WHO) -> bytes:
    """The redacted file; it must be readable."""
    written = encode(redact(made, who))
    assert READER.read(written).redacted
    return written


def texts(made: Snapshot, who: Identities = WHO) -> str:
    """All that the redacted file says, with JSON's escapes undone."""
    return str(msgspec.json.decode(redacted(made, who)))


SECRETS = {
    "host": ("{}", "buildbox7"),
    "host and domain": ("ssh {}:22", "buildbox7.lan"),
    "host in a log": ("{}:1234:5678 [0] NCCL INFO", "buildbox7"),
    "host in quotes": ("hostname='{}'", "buildbox7"),
    "user": ("uid=1000({}) gid=1000", "alice"),
    "user in a path": ("/var/lib/{}/x", "alice"),
    "user in a list": ("root,{},bin", "alice"),
    "home": ("/home/{}/.cache/vllm", "alice"),
    "another's home": ("HOME=/home/{}", "bob"),
    "home of a service": ("/var/home/{}:/bin/sh", "carol"),
    "macOS home": ("/Users/{}/x", "dave"),
    "Windows drive": ("/mnt/c/Users/{}/AppData", "Eve42"),
    "another drive": ("/mnt/d/Users/{}", "Eve42"),
    "Windows": ("C:\\Users\\{}\\AppData", "Mallory"),
    "Windows with slashes": ("C:/Users/{}/AppData", "Mallory"),
    "GPU": ("GPU-{}", UUID),
    "MIG": ("MIG-{}/1", UUID),
    "upper case": ("UUID={}", UUID.upper()),
    "serial": ("Serial Number : {}", "1650423012345"),
    "serial in XML": ("<serial>{}</serial>", "1650423012345"),
    "serial in JSON": ('"serial": "{}"', "1650423012345"),
    "serial of udev": ("ID_SERIAL_SHORT no, serial={}", "S4EWNX0N123456"),
    "machine id": ("machine-id: {}", "0123456789abcdef0123456789abcdef"),
    "MAC": ("link/ether {} brd x", "00:15:5d:01:02:03"),
    "MAC in upper case": ("{}", "00:15:5D:AA:BB:CC"),
    "builder of the kernel": ("Linux version 6 ({}) (gcc)", "mallory@forge.example"),
}
LEAKS = {
    "serial of nvidia-smi -q": ("    Serial Number                         : {}", "1650423012345"),
    "board id of nvidia-smi -q": ("    Board ID                              : {}", "0x1700"),
    "Windows in JSON": ('"C:\\\\Users\\\\{}\\\\x"', "Mallory"),
    "Windows user of two words": ("C:\\Users\\{}\\AppData", "Eve Adams"),
    "user of two words on its drive": ("/mnt/c/Users/{}/AppData", "Eve Adams"),
    "drive in lower case": ("/mnt/c/users/{}/x", "Mallory"),
    "home as Windows sees it": ("\\\\wsl.localhost\\Ubuntu\\home\\{}\\x", "bob"),
    "host in upper case": ("{}", "BUILDBOX7"),
    "host in a file's name": ("core_{}_12", "buildbox7"),
    "MAC after a colon": ("HWaddr:{}", "00:15:5d:01:02:03"),
    "MAC before a colon": ("{}: eth0", "00:15:5d:01:02:03"),
    "MAC of Windows": ("{}", "00-15-5D-01-02-03"),
    "MAC of InfiniBand": ("link/infiniband {} brd", "a0:00:02:20:fe:80:00:00:00:00:00:00:ec:0d:9a:03:00:7e:f8:1a"),
}


@pytest.mark.parametrize(
    ("around", "secret"),
    [
        *(pytest.param(*case, id=name) for name, case in SECRETS.items()),
        *(pytest.param(*case, id=name) for name, case in LEAKS.items()),
    ],
)
def test_what_names_a_machine_or_a_user_is_nowhere(around: str, secret: str) -> None:
    text = around.format(secret)
    said = texts(snapshot(*answers(text), text=text))
    for word in secret.split():
        assert word.lower() not in said.lower()


SERIAL = "1650423012345"
PLACES = {
    "a serial by its call": Call(verb="nvml", args=("nvmlDeviceGetSerial", "0"), answer=Gave(SERIAL)),
    "a serial by its key": Call(verb="nvml", args=("gpu", "0"), answer=Gave({"serial": SERIAL})),
    "a serial by its file": Call(verb="read", args=("/sys/class/dmi/id/product_serial",), answer=Said(SERIAL)),
    "the machine's id": Call(verb="read", args=("/etc/machine-id",), answer=Said(SERIAL + "0" * 19)),
}


@pytest.mark.parametrize("call", PLACES.values(), ids=PLACES)
def test_an_identity_is_known_by_what_was_asked(call: Call) -> None:
    assert SERIAL not in texts(msgspec.structs.replace(snapshot(), transcript=(call,)))


@pytest.mark.parametrize("answer", [Gave({"buildbox7": 1}), Gave([{"/home/bob": 1}]), Failed(cause=None, code="alice")])
def test_keys_and_codes_are_texts_too(answer: Answer) -> None:
    assert not re.search("buildbox7|bob|alice", texts(snapshot(answer)))


VAULT = msgspec.structs.replace(WHO, users=("bobsmith",), homes=("/data/vault/bobsmith", "/data/vault"))


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("/data/vault/bobsmith/lib/libcuda.so.1", "~/lib/libcuda.so.1"),
        ("/data/vault/bobsmith", "~"),
        ("HOME=/data/vault/bobsmith:/data/vault/bobsmith/x", "HOME=~:~/x"),
        ("no '/data/vault/bobsmith'.", "no '~'."),
        ("/data/vault/carol/x", "~/carol/x"),
        ("/data/vaults/x /mnt/data/vault", "/data/vaults/x /mnt/data/vault"),
    ],
)
def test_a_home_in_an_unusual_place_is_a_tilde(said: str, kept: str) -> None:
    made = redact(snapshot(*answers(said), text=said), VAULT)
    assert made.notes == (f"of {kept}",)
    assert "bobsmith" not in texts(snapshot(*answers(said), text=said), VAULT)


def test_a_home_in_a_question_makes_its_words_none_of_ours() -> None:
    call = Call(
        verb="exists", args=("/data/vault/bobsmith/bin/../lib/criu",), answer=Failed(cause=None, detail="bobsmith")
    )
    made = redact(msgspec.structs.replace(snapshot(), transcript=(call,)), VAULT)
    assert made.transcript[0].args == ("~/bin/../lib/criu",)
    assert "bobsmith" not in str(made.transcript)


# --- and the rest stays ------------------------------------------------------------------------------


def test_equal_things_stay_equal_and_others_apart() -> None:
    def of(text: str) -> str:
        answer = redact(snapshot(Said(text)), WHO).transcript[0].answer
        assert isinstance(answer, Said)
        return answer.text

    assert of("alice") == of("/home/alice").removeprefix("/home/")
    assert of(f"GPU-{UUID}") == f"GPU-{of(UUID.upper())}"
    assert of("serial: 12345") == of("serial: 12345") != of("serial: 12346")
    assert len({of(name) for name in ("alice", "al", "buildbox7", "buildbox7.lan", "alicex")}) == 5
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", of(UUID))
    kept = "alicex buildbox77 xal 550.54.14 0x2204 0000:01:00.0 /homes/x 12:34:56 deadbeef-1"
    assert of(kept) == kept


def test_the_key_decides_the_pseudonyms() -> None:
    made = snapshot(*answers(f"alice buildbox7 {UUID} serial: 12345"), text="alice")
    assert redacted(made) == redacted(made)
    other = msgspec.structs.replace(WHO, key=b"another")
    assert redacted(made, other) != redacted(made)
    for word in re.findall(r"(?:user|host)-[0-9a-f]{6}", texts(made)):
        assert word not in texts(made, other)


def test_redacting_twice_reads_and_hides_as_well() -> None:
    made = snapshot(*answers(f"alice /home/bob {UUID} serial: 12345"), text="alice")
    twice = str(msgspec.json.decode(redacted(redact(made, WHO))))
    assert not re.search(f"alice|bob|{UUID}|12345", twice)


def test_equal_things_stay_equal_when_redacted_twice() -> None:
    twice = redact(redact(snapshot(Said("alice"), Said("/home/alice")), WHO), WHO)
    bare, home = (call.answer for call in twice.transcript[:2])
    assert isinstance(bare, Said)
    assert isinstance(home, Said)
    assert home.text == f"/home/{bare.text}"


@pytest.mark.parametrize("word", ["kvm", "wsl2", "known", "tried", "machine", "host", "gpu0", "is", "said"])
def test_our_own_words_survive_a_user_of_that_name(word: str) -> None:
    who = Identities(hosts=(word,), users=(word,), key=b"k")
    made = snapshot(*answers("x"))
    found = READER.read(redacted(made, who)).readings.get(Machine)
    assert isinstance(found, Known)
    assert (found.value.kind, found.value.maybe, found.value.count) == ("kvm", "kvm", 3)
    assert (found.standing, found.at, found.refs) == (Standing.OBSERVED, AT, (0,))


@pytest.mark.parametrize("word", ["hung", "died", "done"])
def test_a_trials_outcome_survives_a_user_of_that_name(word: Literal["hung", "died", "done"]) -> None:
    who = Identities(hosts=(), users=(word,), key=b"k")
    found = READER.read(encode(redact(snapshot(outcome=Outcome(kind=word)), who))).readings.get(Trial)
    assert isinstance(found, Known)
    assert found.value.outcome.kind == word


def test_a_deep_literal_survives_a_user_of_that_name() -> None:
    found = redact(snapshot(), Identities(hosts=(), users=("deep-kind",), key=b"k")).readings.get(Machine)
    assert isinstance(found, Known)
    assert found.value.deep.kind == "deep-kind"


def test_a_full_text_does_not_outgrow_its_limit() -> None:
    assert redacted(snapshot(Said(("al " * TEXT_LIMIT)[:TEXT_LIMIT])))


def test_whatever_can_be_read_can_be_redacted() -> None:
    value: list[Any] = []
    for _ in range(DEPTH_LIMIT - 2):
        value = [value]
    redact(READER.read(encode(snapshot(Gave(value)))), WHO)


def test_names_that_many_machines_have_are_no_identity() -> None:
    """A host called nvidia must not take the probes' questions away."""
    assert "nvidia" in GENERIC
    assert not {host.lower() for host in identities(b"k" * 32).hosts} & GENERIC


@pytest.mark.parametrize(
    "home",
    ["", "/", "//", "/root", "/root/", "/nonexistent", "/var/empty", "/usr/sbin", "/bin", "/proc/self", "/sys", "/run",
     "relative", "/usr/lib/../lib/wsl", "/mnt/c", "/var/run"],
)  # fmt: skip
def test_homes_that_many_machines_have_are_no_identity(monkeypatch: pytest.MonkeyPatch, home: str) -> None:
    monkeypatch.setenv("HOME", "/nonexistent")
    others = identities(b"k").homes
    monkeypatch.setenv("HOME", home)
    assert identities(b"k").homes == others


def test_a_home_is_known_by_the_environment_and_the_password_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "vault").mkdir()
    (tmp_path / "link").symlink_to("vault")
    monkeypatch.setenv("HOME", f"{tmp_path}/link/")
    monkeypatch.setenv("SUDO_USER", "bobsmith")

    def entry(name: str) -> pwd.struct_passwd:
        return pwd.struct_passwd((name, "x", 1000, 1000, "", f"/data/{name}", "/bin/sh"))

    monkeypatch.setattr(pwd, "getpwnam", entry)
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: entry(f"uid{uid}"))
    real = tmp_path.resolve()
    homes = {f"{tmp_path}/link", f"{real}/vault", "/data/bobsmith", f"/data/uid{os.getuid()}"}
    assert homes <= set(identities(b"k").homes)


NAMES = st.from_regex(r"[a-z_][a-z0-9_-]{2,16}[a-z]", fullmatch=True).filter(lambda name: name not in "user-host-home")


@settings(max_examples=200, deadline=None)
@given(NAMES, NAMES, st.binary(min_size=1), st.sampled_from("/ :'\"\n,()"))
def test_no_name_is_left(host: str, user: str, key: bytes, mark: str) -> None:
    who = Identities(hosts=(host, ""), users=(user,), key=key)
    text = f"{mark}{host}{mark}{user}{mark}/home/{user}{mark}"
    answer = redact(snapshot(Said(text)), who).transcript[0].answer
    assert isinstance(answer, Said)
    left = re.split(re.escape(mark), answer.text)
    assert host not in left
    assert user not in left
