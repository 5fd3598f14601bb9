"""Reads endpoints of providers out of catalogues that others keep, and prints them as a table of our own.

The packages are installed here, from pinned versions, by `e2e/run`. `endpoints.toml` is what this prints; a test compares
the two, and another one compares our entries with it.
"""

import ast
import json
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
Endpoints = dict[str, str]

HEAD = """\
# Endpoints of providers, as other catalogues have them. Made by extract.py (`e2e/run catalogues`); not to be edited.
# Queries are left out. Where ours stand against one of these, disagreements.toml says why.
"""


def main() -> None:
    print(table(), end="")


def table() -> str:
    names = tomllib.loads((HERE / "names.toml").read_text())
    rows = [*grant(names["grant"]), *auth_core(names["@auth/core"]), *allauth(names["django-allauth"])]
    return HEAD + "".join(row(*found) for found in sorted(rows, key=lambda found: found[:2]))


def row(entry: str, package: str, version: str, endpoints: Endpoints) -> str:
    known = {"entry": entry, "package": package, "version": version}
    known |= {key: endpoints[key].partition("?")[0] for key in ("authorize_url", "token_url")}
    return "\n[[endpoints]]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in known.items())


Row = tuple[str, str, str, Endpoints]


def grant(names: dict[str, str]) -> Iterator[Row]:
    declared = json.loads((HERE / "node_modules/grant/config/oauth.json").read_text())
    for entry, name in names.items():
        authorize_url, token_url = declared[name]["authorize_url"], declared[name]["access_url"]
        yield entry, "grant", node_version("grant"), {"authorize_url": authorize_url, "token_url": token_url}


def auth_core(names: dict[str, str]) -> Iterator[Row]:
    command = ["node", "core.mjs", *sorted(set(names.values()))]
    found = json.loads(subprocess.run(command, cwd=HERE, check=True, capture_output=True, text=True).stdout)
    for entry, name in names.items():
        yield entry, "@auth/core", node_version("@auth/core"), found[name]


def node_version(package: str) -> str:
    return json.loads((HERE / f"node_modules/{package}/package.json").read_text())["version"]


def allauth(names: dict[str, str]) -> Iterator[Row]:
    [information] = (HERE / "python").glob("django_allauth-*.dist-info")
    version = information.name.removeprefix("django_allauth-").removesuffix(".dist-info")
    for entry, name in names.items():
        views = HERE / f"python/allauth/socialaccount/providers/{name}/views.py"
        texts = Texts()
        texts.visit(ast.parse(views.read_text()))
        endpoints = {"authorize_url": texts.known["authorize_url"], "token_url": texts.known["access_token_url"]}
        yield entry, "django-allauth", version, endpoints


class Texts(ast.NodeVisitor):
    """Texts that a module gives names to, with nobody's settings."""

    def __init__(self) -> None:
        self.known: dict[str, str] = {}

    def visit_If(self, node: ast.If) -> None:
        """What is asked for is a setting, and there is none."""
        for statement in node.orelse:
            self.visit(statement)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        """Names in functions are others."""

    def visit_Assign(self, node: ast.Assign) -> None:
        text = self.text(node.value)
        for target in node.targets:
            if isinstance(target, ast.Name) and text is not None:
                self.known[target.id] = text

    def text(self, node: ast.expr) -> str | None:
        match node:
            case ast.Constant(value=str(text)):
                return text
            case ast.Name(id=name):
                return self.known.get(name)
            case ast.JoinedStr(values=parts):
                texts = [self.text(part) for part in parts]
                return None if None in texts else "".join(text for text in texts if text is not None)
            case ast.FormattedValue(value=value):
                return self.text(value)
            case ast.Call(func=ast.Attribute(attr="get"), args=[_, default]):
                return self.text(default)
        return None


if __name__ == "__main__":
    main()
