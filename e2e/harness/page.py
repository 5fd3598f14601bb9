"""HTML pages, as far as a person without JavaScript notices them: forms, links, and where a page leads by itself."""

from dataclasses import dataclass, field
from html.parser import HTMLParser


@dataclass(frozen=True)
class Control:
    """Something in a form that has a name."""

    kind: str
    name: str
    value: str
    checked: bool = False
    disabled: bool = False


@dataclass
class Form:
    """One form of a page."""

    action: str
    method: str
    controls: list[Control] = field(default_factory=list)

    def choices(self, name: str) -> list[Control]:
        """The checkboxes of that name, also those that cannot be changed."""
        return [control for control in self.controls if (control.kind, control.name) == ("checkbox", name)]

    def buttons(self, name: str) -> list[str]:
        """The values of the submit buttons of that name."""
        return [control.value for control in self.controls if (control.kind, control.name) == ("button", name)]

    def filled_in(
        self, answers: dict[str, str], chosen: dict[str, set[str]] | None = None, button: tuple[str, str] | None = None
    ) -> list[tuple[str, str]]:
        """What is sent, in the order of the page: `answers` are typed in, of the checkboxes that `chosen` names only
        those with these values are checked, and of the buttons only the one that was pressed goes along.
        """
        return [
            (control.name, answers.get(control.name, control.value))
            for control in self.controls
            if not control.disabled and self._is_sent(control, chosen or {}, button)
        ]

    @staticmethod
    def _is_sent(control: Control, chosen: dict[str, set[str]], button: tuple[str, str] | None) -> bool:
        if control.kind == "button":
            return (control.name, control.value) == button
        if control.kind == "checkbox":
            return control.value in chosen[control.name] if control.name in chosen else control.checked
        return True


@dataclass
class Page:
    """One page."""

    forms: list[Form] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    # Where `<meta http-equiv="refresh">` leads.
    refresh: str | None = None


def parse(html: str) -> Page:
    parser = _PageParser()
    parser.feed(html)
    return parser.page


class _PageParser(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.page = Page()
        self.in_form = False

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attributes}
        if tag == "form":
            self.page.forms.append(Form(values.get("action", ""), values.get("method", "get").lower()))
            self.in_form = True
        elif tag in ("input", "button") and values.get("name") and self.in_form:
            self.page.forms[-1].controls.append(_control(tag, values))
        elif tag == "a" and "href" in values:
            self.page.links.append(values["href"])
        elif tag == "meta" and values.get("http-equiv", "").lower() == "refresh":
            seconds, _, url = values.get("content", "").partition(";url=")
            assert seconds == "0" and url, f"nobody waits on a page that leads on with {values}"
            self.page.refresh = url

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self.in_form = False


def _control(tag: str, values: dict[str, str]) -> Control:
    kind = values.get("type", "submit" if tag == "button" else "text").lower()
    return Control(
        kind="button" if kind == "submit" else kind,
        name=values["name"],
        # What browsers send for a checked box without a value.
        value=values.get("value", "on" if kind == "checkbox" else ""),
        checked="checked" in values,
        disabled="disabled" in values,
    )
