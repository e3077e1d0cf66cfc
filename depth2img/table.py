"""The one kind of option table: the fields of `DepthOptions` and of `Settings` are rows of it.

A row says everything about an option: kind, default, range, label, help, infotext key, where it is shown. Panel, app,
flags, API, manifest, infotext, X/Y/Z axes, range checks and the tables in the docs are made from the rows.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal, TypeVar

from .errors import OptionError

Kind = Literal["switch", "number", "choice", "text", "image"]
T = TypeVar("T")

LONGEST_TEXT: Final = 4096
SWITCH: Final = {
    **dict.fromkeys(("true", "yes", "on", "1"), True),
    **dict.fromkeys(("false", "no", "off", "0"), False),
}
"""Text of a switch, in small letters -> its value."""

LONGEST_SHOWN: Final = 80
"""Characters of a bad value that an error message repeats."""


@dataclasses.dataclass(frozen=True)
class Option:
    """One row: everything there is to know about one option.

    Attributes:
        name: field of the dataclass, API field, manifest field, and with dashes the command-line flag.
        kind: `switch` (bool), `number` (float, or int if `whole`), `choice` (a key of `choices`), `text` (str), `image`
            (a payload: file content, data URL, base64 or an already decoded picture; see `io.images`).
        default: the value of an option that is not given.
        label: its name in the UI; unique within its table.
        help: tooltip, flag help and docs; one or two sentences.
        minimum, maximum, step: inclusive range of a `number`; it is shown as a slider if it has a step.
        choices: name -> label of a `choice`.
        whole: the `number` is an int.
        multiple: the `number` is a multiple of this.
        unset: what None stands for in a `number` that may be left open; empty if None is not allowed.
        multiline: the `text` is kept as given: any length, any number of lines.
        infotext: key in the infotext; empty for options that are not written to it (images, server paths).
        silent: values that are not written to the infotext.
        section: part of the page that shows it; for a setting also the pass that uses it ("mask", "hires").
        rank: position within the section, before the order of the table, which is fixed by the positional API.
        stage: `map` if the estimated map depends on it, `adjustment` if `adjust` applies it, otherwise empty.
        look: how the page shows it where its kind leaves a choice.
        flag: command-line flag, if it is not the name with dashes.
        short: short command-line flag.
        webui_only: for an option that works in the WebUI alone, what to do elsewhere; otherwise empty.
        subject: how messages name this sort of option.
    """

    name: str
    kind: Kind
    default: Any
    label: str
    help: str
    minimum: float = 0.0
    maximum: float = 0.0
    step: float = 0.0
    choices: Mapping[str, str] = dataclasses.field(default_factory=dict)
    whole: bool = False
    multiple: int = 1
    unset: str = ""
    multiline: bool = False
    infotext: str = ""
    silent: tuple[Any, ...] = ()
    section: str = ""
    rank: int = 0
    stage: Literal["", "map", "adjustment"] = ""
    look: Literal["", "dropdown", "picture"] = ""
    flag: str = ""
    short: str = ""
    webui_only: str = ""
    subject: str = "Option"

    @property
    def span(self) -> str:
        """The range of a `number` as text, such as `0.1 to 10`."""
        low, high = (f"{end:.0f}" if self.whole else f"{end:g}" for end in (self.minimum, self.maximum))
        return f"{low} to {high}"

    def check(self, value: object) -> Any:
        """Return a value in the form that the dataclass holds.

        Raises:
            OptionError: the type or the range is wrong; the message names the option.
        """
        if self.kind == "switch":
            return self._check_switch(value)
        if self.kind == "number":
            return self._check_number(value)
        if self.kind == "choice":
            return self._check_choice(value)
        return self._check_text(value) if self.kind == "text" else self._check_image(value)

    def parse(self, text: str) -> Any:
        """Return the value that an infotext carries as `str` of what `check` returned.

        Raises:
            OptionError: the text is not such a value.
        """
        if self.kind == "switch":
            return self.check(text == "True" if text in ("True", "False") else None)
        if self.kind == "number":
            try:
                return self.check(int(text) if self.whole else float(text))
            except ValueError as error:
                raise self.error(text) from error
        return self.check(text)

    def error(self, value: object) -> OptionError:
        """Make the error for a value of the wrong type or out of range."""
        shown = repr(value) if isinstance(value, (str, int, float, bool, type(None))) else type(value).__name__
        return OptionError(
            self.name,
            f"{self.subject} '{self.name}' must be {self._wanted()}.",
            got=shown[:LONGEST_SHOWN],
            fix="Correct the value or leave it out.",
        )

    def _wanted(self) -> str:
        if self.kind == "number":
            number = f"a multiple of {self.multiple}" if self.multiple > 1 else "a number"
            return f"{'a whole number' if self.whole and self.multiple == 1 else number} from {self.span}"
        if self.kind == "text":
            return "text" if self.multiline else f"one line of text, at most {LONGEST_TEXT} characters"
        return {
            "switch": "true or false",
            "choice": f"one of: {', '.join(self.choices)}",
            "image": "a picture: base64, a data URL or file content",
        }[self.kind]

    def _check_switch(self, value: object) -> bool:
        # Clients send texts and numbers, too.
        if isinstance(value, str):
            value = SWITCH.get(value.strip().casefold(), value)
        if not isinstance(value, (bool, int, float)) or value not in (0, 1):
            raise self.error(value)
        return bool(value)

    def _check_number(self, value: object) -> float | None:
        if value is None and self.unset:
            return None
        if isinstance(value, str):
            value = self._number_of(value)
        if self.whole and isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int if self.whole else (int, float)):
            raise self.error(value)
        # An int can be too large for a float; comparing it first keeps that an ordinary range error.
        if not self.minimum <= value <= self.maximum or not math.isfinite(value):
            raise self.error(value)
        if self.multiple > 1 and value % self.multiple:
            raise self.error(value)
        return value if self.whole else float(value)

    def _number_of(self, text: str) -> float:
        """Read a number that came as text, as from clients and tables."""
        try:
            number = float(text)
            return number if "." in text or not self.whole else int(text)
        except ValueError as problem:
            raise self.error(text) from problem

    def _check_choice(self, value: object) -> str:
        # The host's script list shows the labels, so a client may well send one.
        for name, label in self.choices.items():
            if isinstance(value, str) and value in (name, label):
                return name
        raise self.error(value)

    def _check_text(self, value: object) -> str:
        if self.multiline and isinstance(value, str):
            return value
        if value is None and not self.multiline:
            return str(self.default)
        if not isinstance(value, str) or len(value) > LONGEST_TEXT or not all(map(str.isprintable, value)):
            raise self.error(value)
        return value.strip() or str(self.default)

    def _check_image(self, value: object) -> object:
        if value is None or (isinstance(value, str) and not value):
            return None
        if isinstance(value, (bool, int, float, Mapping)):
            raise self.error(value)
        return value


# --- rows, as the fields of a dataclass -------------------------------------------------------------------------------


def switch(default: bool, label: str, help: str, **more: Any) -> bool:
    """Declare a field that is true or false; `more` are attributes of `Option`."""
    return _row("switch", default, label, help, **more)


def number(default: T, label: str, help: str, span: tuple[float, float, float], **more: Any) -> T:
    """Declare a numeric field; `span` is minimum, maximum and the step of its slider, 0 to show it as a plain field."""
    low, high, step = span
    return _row("number", default, label, help, minimum=low, maximum=high, step=step, **more)


def whole(default: T, label: str, help: str, span: tuple[int, int, int], **more: Any) -> T:
    """Declare a field that holds an int; the arguments are those of `number`."""
    return number(default, label, help, span, whole=True, **more)


def choice(default: str, label: str, help: str, choices: Mapping[str, str], **more: Any) -> str:
    """Declare a field that holds one of the names in `choices` (name -> label)."""
    return _row("choice", default, label, help, choices=dict(choices), **more)


def text(default: str, label: str, help: str, **more: Any) -> str:
    """Declare a field that holds text: one line, unless it is `multiline`."""
    return _row("text", default, label, help, **more)


def image(label: str, help: str, **more: Any) -> object:
    """Declare a field that holds a picture, a map or a mask, or None."""
    return _row("image", None, label, help, **more)


def _row(kind: Kind, default: T, label: str, help: str, **more: Any) -> T:
    row = Option("", kind, default, label, help, **{"silent": (default,), **more})
    return dataclasses.field(default=default, metadata={"option": row})


def rows(table: type, subject: str) -> dict[str, Option]:
    """Collect the rows of a dataclass, name -> option in the order of its fields.

    Args:
        table: a dataclass all of whose fields were declared with the functions above.
        subject: how messages name its options.
    """
    return {
        field.name: dataclasses.replace(field.metadata["option"], name=field.name, subject=subject)
        for field in dataclasses.fields(table)
    }


def written(values: object, table: Mapping[str, Option]) -> Iterator[tuple[Option, Any]]:
    """Yield each option that an infotext writes, with its value; `values` is an instance of the table's dataclass."""
    for name, option in table.items():
        value = getattr(values, name)
        if option.infotext and value not in option.silent:
            yield option, value
