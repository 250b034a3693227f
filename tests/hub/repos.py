"""The endpoints of users, repos, refs, pull requests and collections; those of files are in `files`."""

from tests.hub.call import FOLDERS, Call, Refusal, Routes, commit_at
from tests.hub.state import Collection, Repo

DATE = "2024-01-01T00:00:00.000Z"
TITLE_LIMIT = 59  # characters of a collection's title
DESCRIPTION_LIMIT = 150  # characters of a collection's description
routes = Routes()


@routes("GET", "/api/whoami-v2")
def whoami(call: Call) -> dict:
    user = call.signed_in()
    orgs = [{"type": "org", "name": name, "roleInOrg": role} for name, role in user.orgs.items()]
    auth = {"type": "access_token", "accessToken": {"displayName": "test", "role": user.role}}
    return {"type": "user", "name": user.name, "orgs": orgs, "auth": auth}


@routes("POST", "/api/repos/create")
def create_repo(call: Call) -> dict:
    asked, user = call.json, call.signed_in()
    kind, namespace = asked.get("type", "model"), asked["organization"] or user.name
    call.allow(namespace)
    name = f"{namespace}/{asked['name']}"
    url = call.link(kind, name)
    if f"{kind} {name}" in call.state.repos:
        raise Refusal(409, f"You already created this {kind} repo", url=url)
    call.state.repos[f"{kind} {name}"] = Repo(kind, name, private=asked.get("visibility") == "private")
    return {"url": url}


@routes("PUT", "{api}/settings")
def change_settings(call: Call, kind: str, name: str) -> dict:
    repo, asked = call.writable(kind, name), call.json
    repo.gated = asked.get("gated", repo.gated)
    if "visibility" in asked:
        repo.private = asked["visibility"] == "private"
    return {}


@routes("GET", "{api}")
@routes("GET", "{api}/revision/{rev}")
def describe(call: Call, kind: str, name: str, rev: str = "main") -> dict:
    repo = call.repo(kind, name)
    commit = commit_at(repo, rev)
    siblings = [{"rfilename": path} for path in commit.files]
    return {"id": name, "sha": commit.id, "private": repo.private, "gated": repo.gated, "siblings": siblings}


@routes("GET", "{api}/refs")
def list_refs(call: Call, kind: str, name: str) -> dict:
    repo = call.repo(kind, name)

    def listed(folder: str) -> list[dict]:
        return [{"name": ref, "ref": folder + ref, "targetCommit": id} for ref, id in repo.refs_in(folder).items()]

    return {"branches": listed("refs/heads/"), "tags": listed("refs/tags/"), "converts": []}


@routes("GET", "{api}/commits/{rev}")
def list_commits(call: Call, kind: str, name: str, rev: str) -> list[dict]:
    repo = call.repo(kind, name)
    return [
        {"id": one.id, "title": one.title, "message": "", "date": DATE, "authors": [{"user": one.author}]}
        for one in repo.history(commit_at(repo, rev))
    ]


@routes("POST", "{api}/branch/{branch}")
def create_branch(call: Call, kind: str, name: str, branch: str) -> dict:
    return _add_ref(call.writable(kind, name), f"refs/heads/{branch}", call.json.get("startingPoint", "main"))


@routes("POST", "{api}/tag/{rev}")
def create_tag(call: Call, kind: str, name: str, rev: str) -> dict:
    return _add_ref(call.writable(kind, name), f"refs/tags/{call.json['tag']}", rev)


def _add_ref(repo: Repo, ref: str, revision: str) -> dict:
    if ref in repo.refs:
        raise Refusal(409, f"Reference already exists: {ref}")
    repo.refs[ref] = commit_at(repo, revision).id
    return {}


@routes("DELETE", "{api}/tag/{tag}")
def delete_tag(call: Call, kind: str, name: str, tag: str) -> dict:
    if call.writable(kind, name).refs.pop(f"refs/tags/{tag}", None) is None:
        raise Refusal(404, f"Invalid rev id: {tag}", "RevisionNotFound")
    return {}


@routes("GET", "{api}/discussions")
def list_pulls(call: Call, kind: str, name: str) -> dict:
    found = [
        {"num": pull.num, "title": pull.title, "status": "open", "isPullRequest": True, "createdAt": DATE}
        | {"author": {"name": pull.author}, "repo": {"name": name, "type": kind}}
        for pull in call.repo(kind, name).pulls
    ]
    return {"discussions": found, "count": len(found), "start": 0}


@routes("POST", "/api/collections")
def create_collection(call: Call) -> dict:
    asked = call.json
    call.allow(asked["namespace"])
    if len(asked["title"]) > TITLE_LIMIT:
        raise Refusal(400, f"The title may have at most {TITLE_LIMIT} characters.")
    if len(asked.get("description", "")) > DESCRIPTION_LIMIT:
        raise Refusal(400, f"The description may have at most {DESCRIPTION_LIMIT} characters.")
    made = Collection(asked["namespace"], asked["title"], asked.get("description"), asked["private"])
    if made.slug in call.state.collections:
        raise Refusal(409, "You already have a collection with this title.", slug=made.slug)
    call.state.collections[made.slug] = made
    return _described(made)


@routes("GET", "/api/collections/{slug}")
def show_collection(call: Call, slug: str) -> dict:
    return _described(call.collection(slug))


@routes("POST", "/api/collections/{slug}/items")
def add_item(call: Call, slug: str) -> dict:
    collection, item = call.collection(slug), call.json["item"]
    call.allow(collection.namespace)
    if item["type"] in FOLDERS:
        call.repo(item["type"], item["id"])
    if any(item.items() <= known.items() for known in collection.items):
        raise Refusal(409, "This item is already in the collection.")
    collection.items.append(item | {"note": call.json.get("note")})
    return _described(collection)


def _described(collection: Collection) -> dict:
    items = [
        item | {"_id": f"{position:024x}", "position": position, "note": {"text": item["note"]}}
        for position, item in enumerate(collection.items)
    ]
    described = {"slug": collection.slug, "owner": {"name": collection.namespace}, "lastUpdated": DATE}
    return {**collection.export(), **described, "items": items, "theme": "orange", "position": 0, "upvotes": 0}
