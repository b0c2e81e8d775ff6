"""The artifacts of the W&B server on loopback: what the real client asks to make a version of one."""

import json
from dataclasses import dataclass, field
from typing import Any


@dataclass
class ServedArtifact:
    """One version of one artifact."""

    id: str
    name: str
    type: str
    digest: str
    version: int
    files: dict[str, bytes] = field(default_factory=dict)
    """By name in the artifact, once the manifest and every upload have come."""
    uploads: dict[str, bytes] = field(default_factory=dict)
    """By place of upload."""
    committed: bool = False

    def commit(self) -> None:
        manifest = json.loads(self.uploads["manifest"])
        uploaded = {place.removeprefix("file/"): data for place, data in self.uploads.items()}
        self.files = {name: uploaded[name] for name in manifest["contents"]}
        self.committed = True


class Artifacts:
    """Answers the GraphQL operations about artifacts; ``versions`` holds what was made."""

    def __init__(self) -> None:
        self.versions: list[ServedArtifact] = []
        self.refuse = False
        """Whether artifacts are answered with what no client understands."""

    def latest(self, name: str) -> ServedArtifact | None:
        """The last committed version of an artifact."""
        mine = [each for each in self.versions if each.name == name and each.committed]
        return mine[-1] if mine else None

    def by_id(self, identity: str) -> ServedArtifact:
        return next(each for each in self.versions if each.id == identity)

    def type_of(self, values: dict[str, Any]) -> dict[str, Any]:
        if self.refuse:
            return {}
        found = self.latest(values["name"].split(":")[0])
        return {"project": {"artifact": found and {"artifactType": {"name": found.type}}}}

    def algorithm(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"project": {"artifactType": None}}

    def create(self, values: dict[str, Any]) -> dict[str, Any]:
        asked = values["input"]
        name = asked.get("artifactCollectionName") or asked["artifactCollectionNames"][0]
        latest = self.latest(name)
        if latest is not None and latest.digest == asked["digest"]:
            made = latest
        else:
            number = len(self.versions)
            version = 0 if latest is None else latest.version + 1
            made = ServedArtifact(f"a{number}", name, asked["artifactTypeName"], asked["digest"], version)
            self.versions.append(made)
        sequence = {"latestArtifact": latest and {"id": latest.id, "versionIndex": latest.version}}
        state = "COMMITTED" if made.committed else "PENDING"
        return {"createArtifact": {"artifact": {"id": made.id, "state": state, "artifactSequence": sequence}}}

    def manifest(self, values: dict[str, Any], url: str) -> dict[str, Any]:
        made = values["artifactID"]
        file = {"id": f"m-{made}", "uploadUrl": f"{url}/artifact/{made}/manifest", "uploadHeaders": []}
        return {"createArtifactManifest": {"artifactManifest": {"id": f"m-{made}", "file": file}}}

    def place(self, values: dict[str, Any], url: str) -> dict[str, Any]:
        edges = [
            {"node": {
                "id": f"f-{number}", "name": spec["name"], "displayName": spec["name"],
                "storagePath": f"file/{spec['name']}", "uploadHeaders": [], "uploadMultipartUrls": None,
                "uploadUrl": f"{url}/artifact/{spec['artifactID']}/file/{spec['name']}",
                "artifact": {"id": spec["artifactID"]},
            }}
            for number, spec in enumerate(values["input"]["artifactFiles"])
        ]  # fmt: skip
        return {"createArtifactFiles": {"files": {"edges": edges}}}

    def commit(self, values: dict[str, Any]) -> dict[str, Any]:
        made = self.by_id(values["artifactID"])
        made.commit()
        return {"commitArtifact": {"artifact": {"id": made.id, "digest": made.digest}}}

    def put(self, place: str, body: bytes) -> None:
        """Takes one upload: ``<id>/manifest`` or ``<id>/file/<name>``."""
        identity, rest = place.split("/", 1)
        self.by_id(identity).uploads[rest] = body
