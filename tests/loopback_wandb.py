"""A W&B server on 127.0.0.1, in the standard library: as much of one as the real client needs.

It keeps runs with their configuration, history, summary and files, applies the file stream by offsets, and
can be set to answer 503 for a while, to swallow requests, or to die and come back on the same port.
"""

import gzip
import json
import re
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

from loopback_artifacts import Artifacts

ENTITY = "someone"
API_KEY = "local-" + "k" * 40


class Refusal(Exception):
    """What the server answers as an error of GraphQL."""


@dataclass
class ServedRun:
    """What the server knows of one run."""

    project: str
    id: str
    name: str = ""
    group: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    alerts: list[dict[str, Any]] = field(default_factory=list)
    complete: bool = False

    @property
    def history(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines]


class LoopbackWandb:
    """``with LoopbackWandb() as server``: then ``server.url``, ``server.runs``."""

    def __init__(self) -> None:
        self.runs: dict[str, ServedRun] = {}
        self.artifacts = Artifacts()
        self.views: dict[str, dict[str, Any]] = {}
        """Saved workspaces by id."""
        self.charts: dict[str, dict[str, Any]] = {}
        """Custom charts by id."""
        self.no_charts = ""
        """Why this server makes no custom chart; empty: it makes them."""
        self.asked: Counter[str] = Counter()
        self.unknown: set[str] = set()
        self.refuse = 0
        """How many of the next requests are answered with 503."""
        self.refused = 0
        self.silent = threading.Event()
        """While set, requests are taken and never answered."""
        self.deny = False
        """Whether every request is answered with 401, as for a wrong key."""
        self.lock = threading.Lock()
        self._server: ThreadingHTTPServer | None = None
        self.port = 0
        self.live()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def busy(self) -> bool:
        """Whether the next request is to be refused."""
        refused = self.refuse > 0
        self.refuse = max(0, self.refuse - 1)
        self.refused += refused
        return refused

    def live(self) -> None:
        owner = self

        class Handler(_Handler):
            world = owner

        self._server = _Server(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def die(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def __enter__(self) -> "LoopbackWandb":
        return self

    def __exit__(self, *_: object) -> None:
        self.silent.clear()
        self.die()

    def answer(self, query: str, values: dict[str, Any]) -> dict[str, Any]:
        """The data of one GraphQL operation."""
        found = re.search(r"(?:query|mutation)\s+(\w+)", query)
        operation = found.group(1) if found else "?"
        self.asked[operation] += 1
        answers = {
            "Viewer": self._viewer, "GetDefaultEntity": self._viewer, "ServerFeaturesQuery": self._features,
            "RunResumeStatus": self._resume, "UpsertBucket": self._upsert, "CreateRunFiles": self._files,
            "RunParquetHistory": self._parquet, "Run": self._run, "RunHistoryKeys": self._run,
            "SampledHistoryPage": self._sampled, "NotifyScriptableRunAlert": self._alert,
            "RunFullHistory": self._full, "UpsertView2": self._view, "CreateCustomChart": self._chart,
            "ArtifactType": self.artifacts.type_of, "CreateArtifact": self.artifacts.create,
            "FetchArtifactDigestAlgorithm": self.artifacts.algorithm,
            "CreateArtifactManifest": lambda values: self.artifacts.manifest(values, self.url),
            "CreateArtifactFiles": lambda values: self.artifacts.place(values, self.url),
            "CommitArtifact": self.artifacts.commit,
        }  # fmt: skip
        if operation not in answers:
            self.unknown.add(operation)
            return {}
        return answers[operation](values)

    def _viewer(self, _: dict[str, Any]) -> dict[str, Any]:
        viewer = {"id": "u", "entity": ENTITY, "username": ENTITY, "email": "", "flags": "{}", "admin": False}
        return {"viewer": viewer | {"teams": {"edges": []}}}

    def _features(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"serverInfo": {"features": []}}

    def _resume(self, values: dict[str, Any]) -> dict[str, Any]:
        run = self.runs.get(values["name"])
        bucket = None
        if run is not None:
            bucket = {
                "id": run.id, "name": run.id, "displayName": run.name,
                "summaryMetrics": json.dumps(run.summary),
                "logLineCount": 0, "historyLineCount": len(run.lines), "eventsLineCount": 0,
                "historyTail": json.dumps(run.lines[-1:]), "eventsTail": "[]",
                "config": json.dumps(run.config), "tags": [], "notes": None, "wandbConfig": '{"t": 1}',
            }  # fmt: skip
        return {"model": {"id": "p", "name": values["project"], "entity": {"id": "e", "name": ENTITY},
                          "bucket": bucket}}  # fmt: skip

    def _upsert(self, values: dict[str, Any]) -> dict[str, Any]:
        inserted = values["name"] not in self.runs
        run = self.runs.setdefault(values["name"], ServedRun(values["project"], values["name"]))
        run.complete = False
        run.name = values.get("displayName") or run.name
        run.group = values.get("groupName") or run.group
        run.config |= json.loads(values.get("config") or "{}")
        bucket = {
            "id": run.id, "name": run.id, "displayName": run.name, "description": None,
            "config": json.dumps(run.config), "sweepName": None, "historyLineCount": len(run.lines),
            "project": {"id": "p", "name": run.project, "entity": {"id": "e", "name": ENTITY}},
        }  # fmt: skip
        return {"upsertBucket": {"bucket": bucket, "inserted": inserted}}

    def _files(self, values: dict[str, Any]) -> dict[str, Any]:
        files = [{"name": name, "uploadUrl": f"{self.url}/put/{values['run']}/{name}"}
                 for name in values["files"]]  # fmt: skip
        return {"createRunFiles": {"runID": values["run"], "uploadHeaders": [], "files": files}}

    def _run(self, values: dict[str, Any]) -> dict[str, Any]:
        run = self.runs.get(values["name"])
        return {"project": {"run": None if run is None else _described(run)}}

    def _parquet(self, values: dict[str, Any]) -> dict[str, Any]:
        run = self.runs[values["runName"]]
        wanted = set(values["liveKeys"])
        rows = [row for row in run.history if wanted <= set(row)]
        live = [{key: row[key] for key in {"_step", *wanted} if key in row} for row in rows]
        return {"project": {"run": {"parquetHistory": {"parquetUrls": [], "liveData": live}}}}

    def _sampled(self, values: dict[str, Any]) -> dict[str, Any]:
        run, spec = self.runs[values["run"]], json.loads(values["spec"])
        wanted = set(spec["keys"])
        rows = [{key: row[key] for key in wanted} for row in run.history
                if wanted <= set(row) and spec["minStep"] <= row["_step"] <= spec["maxStep"]]  # fmt: skip
        return {"project": {"run": {"sampledHistory": [rows[: spec["samples"]]]}}}

    def _full(self, values: dict[str, Any]) -> dict[str, Any]:
        lines = self.runs[values["name"]].lines
        return {"project": {"run": {"history": lines[: values["samples"]]}}}

    def _view(self, values: dict[str, Any]) -> dict[str, Any]:
        identity = values.get("id") or f"view-{len(self.views)}"
        self.views[identity] = values | {"spec": json.loads(values["spec"])}
        return {"upsertView": {"view": {"id": identity, "name": values["name"]}, "inserted": True}}

    def _chart(self, values: dict[str, Any]) -> dict[str, Any]:
        identity = f"{values['entity']}/{values['chartName']}"
        if self.no_charts or identity in self.charts:
            raise Refusal(self.no_charts or f"a chart named {values['chartName']} exists already")
        self.charts[identity] = values | {"spec": json.loads(values["spec"])}
        return {"createCustomChart": {"chart": {"id": identity}}}

    def _alert(self, values: dict[str, Any]) -> dict[str, Any]:
        self.runs[values["runName"]].alerts.append(values)
        return {"notifyScriptableRunAlert": {"success": True}}

    def stream(self, run_id: str, sent: dict[str, Any]) -> None:
        """One message of the file stream; lines that arrive again overwrite themselves."""
        run = self.runs[run_id]
        for name, chunk in sent.get("files", {}).items():
            if name == "wandb-history.jsonl":
                offset = chunk["offset"]
                run.lines[offset : offset + len(chunk["content"])] = chunk["content"]
            elif name == "wandb-summary.json":
                run.summary = json.loads(chunk["content"][-1])
        run.complete = run.complete or bool(sent.get("complete"))


def _described(run: ServedRun) -> dict[str, Any]:
    last = max((row["_step"] for row in run.history), default=-1)
    return {
        "id": run.id, "name": run.id, "displayName": run.name, "tags": [], "state": "finished",
        "group": run.group, "jobType": None, "commit": None, "readOnly": False,
        "createdAt": "2024-01-01T00:00:00", "heartbeatAt": "2024-01-01T00:00:00",
        "description": None, "notes": None, "sweepName": None,
        "projectId": "1", "internalId": "1", "storageId": "1",
        "historyLineCount": len(run.lines), "config": json.dumps(run.config),
        "summaryMetrics": json.dumps(run.summary), "systemMetrics": "{}",
        "historyKeys": {"lastStep": last, "keys": {}, "sets": []},
        "user": {"name": ENTITY, "username": ENTITY},
    }  # fmt: skip


class _Server(ThreadingHTTPServer):
    allow_reuse_address = True
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    world: LoopbackWandb

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing on the console."""

    def _body(self) -> bytes | None:
        """The request's body; None where it is refused or swallowed instead of answered."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        while self.world.silent.is_set():
            time.sleep(0.1)
        if self.world.deny:
            self._answer({"error": "permission denied"}, 401)
            return None
        with self.world.lock:
            if self.world.busy():
                self._answer({"error": "busy"}, 503)
                return None
        return body

    def _answer(self, content: Any, status: int = 200) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        body = self._body()
        if body is None:
            return
        message = json.loads(body)
        if self.path.startswith("/files/"):
            with self.world.lock:
                self.world.stream(unquote(self.path.split("/")[-2]), message)
            self._answer({})
        else:
            try:
                with self.world.lock:
                    data = self.world.answer(message["query"], message.get("variables") or {})
            except Refusal as refusal:
                self._answer({"data": None, "errors": [{"message": str(refusal)}]})
            else:
                self._answer({"data": data})

    def do_HEAD(self) -> None:
        """Somebody asks whether anyone is there; a server that only swallows is not."""
        while self.world.silent.is_set():
            time.sleep(0.1)
        self.send_response(404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_PUT(self) -> None:
        body = self._body()
        if body is None:
            return
        _, kind, place = unquote(self.path).split("/", 2)
        with self.world.lock:
            if kind == "artifact":
                self.world.artifacts.put(place, body)
            else:
                run_id, name = place.split("/", 1)
                self.world.runs[run_id].files[name] = body
        self._answer({})
