"""What GitLab answers, as its server from npm insists on it: it refuses answers in which any of this is missing."""

from base64 import b64encode

WHEN = "2026-01-02T03:04:05Z"
WEB_URL = "https://gitlab.example/group/project"
ADA = {"id": 7, "username": "ada", "name": "Ada", "avatar_url": WEB_URL, "web_url": WEB_URL}

PROJECT = {
    "id": 11,
    "name": "project",
    "path_with_namespace": "group/project",
    "visibility": "private",
    "web_url": WEB_URL,
    "description": None,
    "ssh_url_to_repo": "git@gitlab.example:group/project.git",
    "http_url_to_repo": f"{WEB_URL}.git",
    "created_at": WHEN,
    "last_activity_at": WHEN,
    "default_branch": "main",
}

FILE = {
    "file_name": "read me.md",
    "file_path": "docs/read me.md",
    "size": 5,
    "encoding": "base64",
    "content": b64encode(b"Hello").decode(),
    "content_sha256": "0" * 64,
    "ref": "main",
    "blob_id": "b" * 40,
    "last_commit_id": "c" * 40,
}

WRITTEN_FILE = {"file_path": "docs/read me.md", "branch": "main", "commit_id": "c" * 40}

ISSUE = {
    "id": 21,
    "iid": 1,
    "project_id": 11,
    "title": "It is broken",
    "description": "All of it",
    "state": "opened",
    "author": ADA,
    "assignees": [],
    "labels": [],
    "milestone": None,
    "created_at": WHEN,
    "updated_at": WHEN,
    "closed_at": None,
    "web_url": WEB_URL,
}

MERGE_REQUEST = {
    **{name: ISSUE[name] for name in ISSUE if name not in ("labels", "milestone")},
    "source_branch": "mend",
    "target_branch": "main",
    "diff_refs": None,
    "merged_at": None,
    "merge_commit_sha": None,
}

BRANCH = {"name": "mend", "commit": {"id": "c" * 40, "web_url": WEB_URL}}

COMMIT = {
    "id": "c" * 40,
    "short_id": "cccccccc",
    "title": "Mend it",
    "author_name": "Ada",
    "author_email": "ada@example.com",
    "authored_date": WHEN,
    "committer_name": "Ada",
    "committer_email": "ada@example.com",
    "committed_date": WHEN,
    "web_url": WEB_URL,
    "parent_ids": [],
}
