"""Looking for secrets where they must not be."""

from collections.abc import Iterable
from pathlib import Path


def assert_no_secrets(text: bytes, secrets: Iterable[str], where: str) -> None:
    """Fails without showing the secret."""
    found = [secret for secret in secrets if secret.encode() in text]
    hints = [f"one of {len(secret)} characters" for secret in found]
    assert not found, f"{where} contains secrets: {', '.join(hints)}"


def assert_no_secrets_in_files(directory: Path, secrets: set[str]) -> None:
    """Fails for any file below `directory`, such as a log or a database."""
    files = [path for path in directory.rglob("*") if path.is_file()]
    assert files, f"{directory} is empty: nothing was searched"
    for path in files:
        assert_no_secrets(path.read_bytes(), secrets, str(path.relative_to(directory)))
