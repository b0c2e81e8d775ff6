"""Spoils a hub's answers, one at a time, and tables the ends: python tests/http_fuzz.py 200.

A loopback hub serves a small model: whole, in shards, and by ranges (as is done without the loss). Right
ends: the right files (where the change decides nothing, or another try mends it), or one clear line that
names the repository; nothing outside the cache, no secret, and no case longer than its deadline.
"""

import gzip
import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from folder_fuzz import print_table
from huggingface_hub import close_session, constants
from huggingface_hub import logging as hub_logging
from loopback_hub import Answer, Hub, loopback_hub, use_hub
from safetensors.torch import load_file
from saved_models import save

from tracker.checkpoints import CheckpointCache, answers, download, files, listing, parts
from tracker.errors import TrackerError
from tracker.records import Checkpoint

REPO = "lab/pythia-some"
FORMS = {"safetensors": "one", "sharded safetensors": "shards"}
SECONDS = 1.0
"""What stands for the minutes that an answer, or a piece of a file, may take."""
DEADLINE = 25.0
"""Seconds that a case may take: some tries of a listing, an index and files, each within ``SECONDS``."""
PLACES = ("/refs", "/revision/", "/resolve/", "/content/")
SECRET = "hf_0123456789abcdefghij"
ODD: tuple[Any, ...] = (
    None, 0, -1, 10**18, 0.5, "", "abc", True, [], {}, [[[1]]], "../../../../x", "/etc/passwd",
    "\x1b[2J\x1b]0;x\x07", "a" * 40, "A" * 64,
)  # fmt: skip
NAMES = ("../x", "/etc/passwd", "a\\b", "x\0", "Config.json", "config.json", "CONFIG.JSON", "", ".",
         "model.safetensors.index.json", "pytorch_model.bin", "d/model.safetensors")  # fmt: skip
ELSEWHERE = ("http://127.0.0.1:9/x", "file:///etc/passwd", "ftp://127.0.0.1/x", "//", "/", "", "http://[::1",
             "x" * 9000, "http://localhost:0/", "data:,x", "http://a:b@127.0.0.1:9/", "\x1b[31m")  # fmt: skip
Change = Callable[[Answer, random.Random], Answer]
"""Makes another answer, which is sent as answers are."""
Way = Callable[[BaseHTTPRequestHandler, Answer, random.Random], None]
"""Sends an answer as none is sent."""


def status(answer: Answer, rng: random.Random) -> Answer:
    """Answer with another status."""
    codes = (204, 206, 301, 302, 304, 400, 401, 403, 404, 410, 416, 418, 429, 451, 500, 502, 503, 504, 599)
    return replace(answer, status=rng.choice(codes))


def header(answer: Answer, rng: random.Random) -> Answer:
    """Set one header that clients read to something odd."""
    names = ("X-Linked-Size", "Content-Length", "Content-Encoding", "Transfer-Encoding", "Retry-After",
             "Content-Type", "X-Error-Code", "X-Error-Message", "X-Xet-Hash", "Link")  # fmt: skip
    odd = ("", "-1", "0", "7", "99999999999999999999", "gzip", "chunked", "nan", "RepoNotFound", "GatedRepo",
           "text/html", '<http://127.0.0.1:9/x>; rel="next"', f"Bearer {SECRET}", "x" * 70_000)  # fmt: skip
    return replace(answer, headers=answer.headers | {rng.choice(names): rng.choice(odd)})


def named(answer: Answer, rng: random.Random) -> Answer:
    """Name another hash or commit, or none, wherever the answer names one."""
    odd = rng.choice(("../../../../x", "/etc/passwd", "a" * 40, "b" * 64, "A" * 40, "", "\\..\\x"))
    headers = {key: f'"{odd}"' if "tag" in key.lower() else odd for key in answer.headers
               if key in ("ETag", "X-Linked-Etag", "X-Repo-Commit")}  # fmt: skip
    text = answer.content.decode(errors="replace")
    kind = rng.choice(('"sha": "', '"blobId": "', '"sha256": "', '"targetCommit": "'))
    if kind in text:
        before, _, rest = text.partition(kind)
        changed = before + kind + odd.replace("\\", "/") + rest[rest.index('"') :]
        return replace(answer, content=changed.encode())
    return replace(answer, headers=answer.headers | headers)


def ranged(answer: Answer, rng: random.Random) -> Answer:
    """Answer another range than was asked for, or say so."""
    size = len(answer.content)
    odd = (
        "bytes 0-0/1",
        "bytes */7",
        "bytes 5-2/3",
        f"bytes 1-{size}/{size + 1}",
        "lines 1-2",
        "bytes 0-9",
        "",
    )
    content = rng.choice((answer.content, answer.content[1:], answer.content + b"\0", b""))
    headers = answer.headers | {"Content-Range": rng.choice(odd)}
    return Answer(rng.choice((200, 206, 206, 416)), headers, content)


def body(answer: Answer, rng: random.Random) -> Answer:
    """Send another body."""
    content = answer.content
    other = (b"", b"null", b"[]", b"{}", b"3", content[: len(content) // 2], content + b"x", b"[" * 200_000,
             b'{"a":' * 100_000, b"<p>\x1b[31mno</p>", b"\xff\xfe" * 50, rng.randbytes(len(content) + 1),
             f'{{"error": "Authorization: Bearer {SECRET}"}}'.encode())  # fmt: skip
    return replace(answer, content=rng.choice(other))


def value(answer: Answer, rng: random.Random) -> Answer:
    """Set or drop one value of a JSON answer, however deep."""
    try:
        told = json.loads(answer.content)
    except ValueError:
        return body(answer, rng)
    inside = [each for each in _containers(told) if each]
    if inside:
        holder = rng.choice(inside)
        key = rng.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
        if rng.random() < 0.3:
            del holder[key]
        else:
            holder[key] = rng.choice(ODD)
    return replace(answer, content=json.dumps(told).encode())


def _containers(told: Any) -> Iterator[Any]:
    if isinstance(told, dict | list):
        yield told
        for each in told.values() if isinstance(told, dict) else told:
            yield from _containers(each)


def sibling(answer: Answer, rng: random.Random) -> Answer:
    """List a file more, one twice, or one under another name."""
    try:
        told = json.loads(answer.content)
        listed = told["siblings"]
    except (ValueError, KeyError, TypeError):
        return value(answer, rng)
    entry = dict(rng.choice(listed))
    entry["rfilename"] = rng.choice(NAMES)
    listed.append(entry)
    if rng.random() < 0.5:
        listed.remove(rng.choice(listed[:-1]))
    return replace(answer, content=json.dumps(told).encode())


def redirect(answer: Answer, rng: random.Random) -> Answer:
    """Send the client to somewhere else."""
    headers = answer.headers | {"Location": rng.choice(ELSEWHERE)}
    return Answer(rng.choice((301, 302, 303, 307, 308)), headers, b"")


def bomb(answer: Answer, rng: random.Random) -> Answer:
    """Send a few kilobytes that unpack to many megabytes."""
    return replace(answer, headers=answer.headers | {"Content-Encoding": "gzip"}, content=_BOMB)


_BOMB = gzip.compress(b" " * (64 << 20), 9)


def _begin(to: BaseHTTPRequestHandler, answer: Answer, headers: dict[str, str]) -> None:
    to.send_response(answer.status)
    for key, text in (answer.headers | headers).items():
        to.send_header(key, text)
    to.end_headers()


def drips(to: BaseHTTPRequestHandler, answer: Answer, rng: random.Random) -> None:
    """Send a byte now and then."""
    _begin(to, answer, {"Content-Length": str(len(answer.content))})
    ends, left = time.monotonic() + 6 * SECONDS, answer.content
    while time.monotonic() < ends:
        to.wfile.write(left[:1] or b" ")
        left = left[1:]
        time.sleep(0.05 * SECONDS)


def never_ends(to: BaseHTTPRequestHandler, answer: Answer, rng: random.Random) -> None:
    """Send pieces for ever."""
    _begin(to, answer, {"Transfer-Encoding": "chunked"})
    ends = time.monotonic() + 6 * SECONDS
    while time.monotonic() < ends:
        to.wfile.write(b"10000\r\n" + b" " * 0x10000 + b"\r\n")


def silence(to: BaseHTTPRequestHandler, answer: Answer, rng: random.Random) -> None:
    """Say nothing, or nothing after the headers."""
    if rng.random() < 0.5:
        _begin(to, answer, {"Content-Length": str(len(answer.content))})
        to.wfile.flush()
    time.sleep(3 * SECONDS)


def cut(to: BaseHTTPRequestHandler, answer: Answer, rng: random.Random) -> None:
    """Break off in the middle."""
    _begin(to, answer, {"Content-Length": str(len(answer.content) + 10)})
    to.wfile.write(answer.content[: len(answer.content) // 2])


def garbage(to: BaseHTTPRequestHandler, answer: Answer, rng: random.Random) -> None:
    """Send what is no HTTP."""
    odd = (
        rng.randbytes(200),
        b"",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/9.9 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx\r\n\r\n",
    )
    to.wfile.write(
        rng.choice((*odd, b"HTTP/1.1 100 Continue\r\n\r\n" * 50, b"HTTP/1.1 200 OK\r\na: " + b"b" * 10**6))
    )


def chunks(to: BaseHTTPRequestHandler, answer: Answer, rng: random.Random) -> None:
    """Send pieces whose lengths are none."""
    _begin(to, answer, {"Transfer-Encoding": "chunked"})
    odd = (
        b"zz\r\nab\r\n",
        b"-5\r\nab\r\n",
        b"ffffffffffffffffffff\r\nab",
        b"5\r\nab\r\n0\r\n\r\n",
        b"0\r\n\r\n",
        b"\r\n",
    )
    to.wfile.write(rng.choice(odd))


def loops(to: BaseHTTPRequestHandler, answer: Answer, rng: random.Random) -> None:
    """Redirect to itself."""
    _begin(to, Answer(302, {}, b""), {"Location": to.path, "Content-Length": "0"})


CHANGES: dict[str, Change] = {
    "status": status, "header": header, "hash or commit": named, "range": ranged, "body": body,
    "value of JSON": value, "listed files": sibling, "redirect": redirect, "compressed bomb": bomb,
}  # fmt: skip
WAYS: dict[str, Way] = {
    "a byte now and then": drips, "never ends": never_ends, "silence": silence, "cut off": cut,
    "no HTTP": garbage, "odd chunks": chunks, "redirects to itself": loops,
}  # fmt: skip


@dataclass
class Spoiler:
    """Spoils the next answers to paths that contain ``place``; as ``Hub.spoil`` asks for."""

    how: str
    place: str
    times: int = 100
    rng: random.Random = field(default_factory=random.Random)

    def __call__(self, to: BaseHTTPRequestHandler, answer: Answer) -> Answer | None:
        """Return the answer to send; None where one was sent."""
        if self.times <= 0 or self.place not in to.path:
            return answer
        self.times -= 1
        if self.how in CHANGES:
            return CHANGES[self.how](answer, self.rng)
        with suppress(OSError):  # the client hung up
            WAYS[self.how](to, answer, self.rng)
        return None


@contextmanager
def hostile_hub(folder: Path) -> Iterator[Hub]:
    """Serve a small model whole and in shards, with deadlines of a second in place of minutes."""
    for form, name in FORMS.items():
        save(folder / "hub" / f"{REPO}-{name}" / "step1", form)
    with pytest.MonkeyPatch.context() as patched, loopback_hub(folder / "hub") as hub:
        use_hub(patched, hub, folder / "home")
        patched.setenv("HF_TOKEN", SECRET)
        for module, name, number in (
            (listing, "ANSWER_SECONDS", SECONDS), (parts, "ANSWER_SECONDS", SECONDS),
            (listing, "PIECE_SECONDS", SECONDS), (download, "PIECE_SECONDS", SECONDS),
            (parts, "PIECE_SECONDS", SECONDS), (parts, "LEAST_SAVED", 0.0),
            (answers, "LONGEST_WAIT", SECONDS), (answers, "TRIES", 2),
            (constants, "HF_HUB_DISABLE_XET", True),
            (constants, "HF_HUB_DOWNLOAD_TIMEOUT", SECONDS), (constants, "HF_HUB_ETAG_TIMEOUT", SECONDS),
        ):  # fmt: skip
            patched.setattr(module, name, number)
        hub_logging.set_verbosity_error()
        yield hub
    close_session()


def outcome(hub: Hub, form: str, root: Path, *, head: bool = True) -> str:
    """What fetching a checkpoint from the hub as it is ends in.

    Args:
        hub: spoils its answers.
        form: of the model, one of ``FORMS``' values.
        root: an empty folder, for the cache.
        head: whether the whole file is needed; else it is read by ranges.
    """
    began = time.monotonic()
    end = _fetched(hub, f"{REPO}-{form}", root, head)
    took = time.monotonic() - began
    outside = [each for each in root.rglob("*") if "cache" not in each.relative_to(root).parts[:1]]
    if outside:
        return f"wrote outside the cache: {outside[0]}"
    return end if took < DEADLINE else f"too slow ({took:.0f} s)"


def _fetched(hub: Hub, repo: str, root: Path, head: bool) -> str:
    try:
        if "step1" not in listing.branches(repo):
            return "one line"  # as discovery says it
        wanted = Checkpoint("hub", "some", 0, 1, "hub", repo, "step1")
        answer = listing.look([wanted]).inspected[wanted]
        hold = CheckpointCache(root / "cache", head=head).fetch(wanted, answer)
        weights = files.whole(hold.fetched.path, "some")
    except TrackerError as error:
        line = str(error)
        named = repo in line or repo.replace("/", "--") in line  # as its folder in a cache is called
        clear = named and line.isprintable() and SECRET not in line and len(line) < 900
        return "one line" if clear else f"unclear: {line[:150]!r}"
    except BaseException as error:
        return f"raw {type(error).__name__}: {error}"[:150]
    good = hub.root / repo / "step1"
    small = [each for each in hold.fetched.path.iterdir() if each.is_file() and each not in weights]
    same = all(each.read_bytes() == (good / each.name).read_bytes() for each in small)
    same = same and all(_equal(each, good / each.name) for each in weights)
    return "right files" if same else "other files"


def _equal(found: Path, good: Path) -> bool:
    """Whether tensors are those of the good file; of a part, those that it has."""
    whole = load_file(good)
    return all(tensor.equal(whole[name]) for name, tensor in load_file(found).items())


def try_answers(folder: Path, count: int, seed: int = 0) -> Counter[tuple[str, str]]:
    """Spoil answers one at a time; count what was changed and what became of it.

    Args:
        folder: an empty folder to work in.
        count: of cases.
        seed: of the choices.
    """
    rng, counts, hows = random.Random(seed), Counter[tuple[str, str]](), (*CHANGES, *WAYS)
    with hostile_hub(folder) as hub:
        for number in range(count):
            form, head = rng.choice((("one", True), ("shards", True), ("one", False)))
            spoiler = Spoiler(hows[number % len(hows)], rng.choice(PLACES), rng.choice((1, 1, 100)), rng)
            root = folder / "work"
            root.mkdir()
            hub.spoil = spoiler
            counts[spoiler.how, outcome(hub, form, root, head=head)] += 1
            close_session()
            shutil.rmtree(root, ignore_errors=True)
    return counts


def main() -> None:
    """Spoil 200 answers, or as many as asked for, and print the table."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    with tempfile.TemporaryDirectory() as folder:
        print_table(try_answers(Path(folder), count, seed), f"{count} hostile HTTP answers")


if __name__ == "__main__":
    main()
