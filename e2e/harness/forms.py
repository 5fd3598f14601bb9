"""HTML forms, as far as a person would notice them."""

from dataclasses import dataclass, field
from html.parser import HTMLParser


@dataclass
class Form:
    """One form of a page."""

    action: str
    method: str
    fields: dict[str, str] = field(default_factory=dict)

    def filled_in(self, answers: dict[str, str]) -> dict[str, str]:
        """What is sent when a person who knows these answers submits it."""
        return {name: answers.get(name, value) for name, value in self.fields.items()}


def forms_of(html: str) -> list[Form]:
    """All forms of a page, in the order in which they stand there."""
    parser = _FormParser()
    parser.feed(html)
    return parser.forms


class _FormParser(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.forms: list[Form] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attributes}
        if tag == "form":
            self.forms.append(Form(values.get("action", ""), values.get("method", "get").lower()))
        elif tag in ("input", "button") and values.get("name") and self.forms:
            self.forms[-1].fields[values["name"]] = values.get("value", "")
