"""The endpoints of files: read and listed, uploaded to LFS, and committed."""

import base64
import hashlib
import json
import re
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

import yaml

from tests.hub.call import Answer, Call, Refusal, Routes, commit_at
from tests.hub.repos import DATE
from tests.hub.state import LFS_PATTERNS, File, PullRequest, Repo

REGULAR_LIMIT = 10 * 2**20  # bytes; larger files go to LFS whatever their name
STALE = "A commit has happened since. Please refresh and try again."
routes = Routes()


@routes("GET", "{page}/resolve/{rev}/{path}")
def send_file(call: Call, kind: str, name: str, rev: str, path: str) -> Answer:
    repo = call.repo(kind, name)
    granted = call.user is not None and call.user.name in repo.granted
    if repo.gated and not granted and not call.belongs(repo.namespace):
        raise Refusal(403, f"Access to {kind} {name} is restricted and you are not in the list.", "GatedRepo")
    commit = commit_at(repo, rev)
    headers = {"X-Repo-Commit": commit.id}
    if path not in commit.files:
        raise Refusal(404, "Entry not found", "EntryNotFound", headers)
    file = commit.files[path]
    headers["ETag"] = f'"{file.oid}"'
    asked = re.fullmatch(r"bytes=(\d+)-(\d*)", call.headers.get("Range", ""))
    if call.method == "HEAD" or not asked:
        return Answer(200, file.content, headers)
    size = len(file.content)
    first, last = int(asked[1]), min(int(asked[2] or size), size - 1)
    if first > last:
        raise Refusal(416, "Range not satisfiable", headers={**headers, "Content-Range": f"bytes */{size}"})
    return Answer(206, file.content[first : last + 1], {**headers, "Content-Range": f"bytes {first}-{last}/{size}"})


@routes("GET", "{api}/tree/{rev}")
@routes("GET", "{api}/tree/{rev}/{path}")
def tree(call: Call, kind: str, name: str, rev: str, path: str = "") -> list[dict]:
    """Files and folders in the folder `path`; also in those below it, if asked to be recursive."""
    repo = call.repo(kind, name)
    commit = commit_at(repo, rev)
    expanded = call.query.get("expand", "").lower() in ("1", "true")
    entries: dict[str, dict] = {}
    for known, file in commit.files.items():
        entries[known] = {"type": "file", "path": known, "oid": file.git_oid, "size": len(file.content)}
        if expanded:
            last = repo.last_commit(commit, known)
            entries[known]["lastCommit"] = {"id": last.id, "title": last.title, "date": DATE}
        if file.lfs:
            pointer = {"oid": file.sha256, "size": len(file.content), "pointerSize": len(file.in_git)}
            entries[known]["lfs"] = pointer
        for folder in map(str, PurePosixPath(known).parents[:-1]):
            # git sums up what is in a folder; for the clients here the commit's id tells as much.
            entries[folder] = {"type": "directory", "path": folder, "oid": commit.id, "size": 0}
    start = f"{path}/" if path else ""
    inside = {known.removeprefix(start): entry for known, entry in sorted(entries.items()) if known.startswith(start)}
    if not inside:
        raise Refusal(404, f"{path} does not exist on {rev!r}", "EntryNotFound")
    recursive = call.query.get("recursive", "").lower() in ("1", "true")
    return [entry for known, entry in inside.items() if recursive or "/" not in known]


# --- An upload, in the order of its requests ---


@routes("POST", "/api/validate-yaml")
def validate_card(call: Call) -> dict:
    """Of a README that is about to be committed. Only whether it has a header is looked at, and the languages in there."""
    missing = {"message": "empty or missing yaml metadata in repo card"}
    if not call.json["content"].startswith("---\n"):
        return {"errors": [], "warnings": [missing]}
    codes = (yaml.safe_load(call.json["content"].split("---\n")[1]) or {}).get("language") or ()
    for code in [codes] if isinstance(codes, str) else codes:
        if not re.fullmatch("[a-z]{2,3}|code|multilingual", code):
            message = f'"language" with value "{code}" is not valid.\nIt must be an ISO 639-1, 639-2 or 639-3 code'
            raise Refusal(400, "Invalid metadata", errors=[{"message": message}], warnings=[])
    return {"errors": [], "warnings": []}


@routes("POST", "{api}/preupload/{rev}")
def preupload(call: Call, kind: str, name: str, rev: str) -> dict:
    """Which of the files go to LFS."""
    commit = commit_at(call.writable(kind, name, None if _opens_pull(call) else rev), rev)
    files = []
    for asked in call.json["files"]:
        path = asked["path"]
        lfs = asked["size"] > REGULAR_LIMIT or any(fnmatchcase(path, pattern) for pattern in LFS_PATTERNS)
        files.append({"path": path, "uploadMode": "lfs" if lfs else "regular", "shouldIgnore": False})
        if path in commit.files:
            files[-1]["oid"] = commit.files[path].oid  # the client leaves out of its commit what has this sum already
    return {"files": files}


@routes("POST", r"{page}\.git/info/lfs/objects/batch")
def lfs_batch(call: Call, kind: str, name: str) -> dict:
    """Where to upload what is not there yet."""
    # The client names no ref if it is about to open a pull request.
    repo = call.writable(kind, name, call.json.get("ref", {}).get("name"))
    address = f"{call.link(kind, name)}.git/info/lfs/objects"
    objects = []
    for asked in call.json["objects"]:
        objects.append({"oid": asked["oid"], "size": asked["size"]})
        if asked["oid"] not in repo.uploads:
            objects[-1]["actions"] = {"upload": {"href": f"{address}/{asked['oid']}"}}
    return {"transfer": "basic", "objects": objects}


@routes("PUT", r"{page}\.git/info/lfs/objects/{oid}")
def lfs_put(call: Call, kind: str, name: str, oid: str) -> dict:
    """As at a storage provider: whoever has the address may write."""
    call.state.repos[f"{kind} {name}"].uploads[hashlib.sha256(call.body).hexdigest()] = call.body
    return {}


@routes("POST", "{api}/commit/{rev}")
def commit(call: Call, kind: str, name: str, rev: str) -> dict:
    repo, user = call.writable(kind, name, None if _opens_pull(call) else rev), call.signed_in()
    ref = rev if rev.startswith("refs/") else f"refs/heads/{rev}"
    parent = commit_at(repo, ref)
    [header, *changes] = [json.loads(line) for line in call.body.splitlines()]
    title = header["value"]["summary"]
    if header["value"].get("parentCommit", parent.id) != parent.id:
        raise Refusal(412, STALE)
    files = dict(parent.files)
    for change in changes:
        _apply(repo, files, change["key"], change["value"])
    answer = {}
    if _opens_pull(call):
        pull = PullRequest(len(repo.pulls) + 1, title, user.name)
        repo.pulls.append(pull)
        ref, answer["pullRequestUrl"] = pull.ref, f"{call.link(kind, name)}/discussions/{pull.num}"
    made = repo.commit(ref, title, files, parent.id, user.name)
    return answer | {"commitOid": made.id, "commitUrl": f"{call.link(kind, name)}/commit/{made.id}"}


def _apply(repo: Repo, files: dict[str, File], key: str, value: dict) -> None:
    path = value["path"]
    if key == "file":
        files[path] = File(base64.b64decode(value["content"]))
    elif key == "lfsFile":
        if value["oid"] not in repo.uploads:
            raise Refusal(400, f"The LFS object {value['oid']} is not there: upload it before it is committed.")
        files[path] = File(repo.uploads[value["oid"]], lfs=True)
    elif key == "deletedFile":
        if path not in files:
            raise Refusal(404, f"A file with this name doesn't exist: {path}", "EntryNotFound")
        del files[path]
    else:
        raise Refusal(501, f"This Hub does not serve {key} in a commit")


def _opens_pull(call: Call) -> bool:
    return call.query.get("create_pr") == "1"
