"""The rules' language: ``person max > 38 C for 3 s`` to a :class:`Rule`, and back.

    rule      = subject condition clause*
    subject   = CLASS | "any" [ "except" CLASS { ("and" | ",") CLASS } ]
    condition = quantity comparison NUMBER [unit] | [temperature] "rises" NUMBER degrees "in" duration
    quantity  = temperature | "area" | "count"
    clause    = "in" AREA | "for" duration | "hysteresis" NUMBER [unit] | "again" "after" duration

Temperatures are max, mean, min, p95; degrees C, F, K; areas are in % or px; durations in ms, s, min, h. A name that is
no plain word, or is a word of the language, stands in quotation marks.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Literal, NoReturn, get_args

import numpy as np

from edgeunip.classes import Classes
from edgeunip.errors import UsageError, near
from edgeunip.runtimes.words import PLAIN, Word, split

Quantity = Literal["max", "mean", "min", "p95", "area", "count"]
Comparison = Literal[">", ">=", "<", "<="]
Unit = Literal["C", "%", "px", "count"]

_TEMPERATURES = ("max", "mean", "min", "p95")
_DEGREES = {"c": (1.0, 0.0), "f": (5 / 9, -160 / 9), "k": (1.0, -273.15)}
_SECONDS = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0}
_KELVIN = 273.15
_SHARE = 0.05  # of the threshold of an area, its default hysteresis
_BAND_C = 0.5  # default hysteresis of a temperature
_LANGUAGE = {"any", "except", "and", "rises", "in", "for", "hysteresis", "again", "after", *get_args(Quantity)}


@dataclass(frozen=True)
class Rule:
    """What an alarm is raised by.

    Attributes:
        classes: the classes it is about, background included where it was named or meant by "any".
        quantity: what is measured.
        threshold, unit: what it is compared with: degC, % of the frame or area, pixels, or a number of regions.
        comparison: of the quantity, or of its rise, with the threshold.
        window_s: not the quantity but its rise within so many seconds is compared; None: the quantity.
        area: name of the area it looks at; None is the whole frame.
        for_s: how long the condition must hold.
        hysteresis: how far the quantity must come back before the alarm ends, in ``unit``.
        again_s: how long after its end an alarm is not raised again.
        any: it was written with "any".
        name, text: short name, and the rule as it was written; two rules that mean the same are equal.
    """

    classes: tuple[str, ...]
    quantity: Quantity
    threshold: float
    unit: Unit
    comparison: Comparison = ">"
    window_s: float | None = None
    area: str | None = None
    for_s: float = 0.0
    hysteresis: float = 0.0
    again_s: float = 0.0
    any: bool = False
    name: str = field(default="", compare=False)
    text: str = field(default="", compare=False)

    def beyond(self, value: float, *, slack: float = 0.0) -> bool:
        """Tell whether a value satisfies the comparison, or fails it by less than ``slack``."""
        threshold = self.threshold - slack if self.comparison[0] == ">" else self.threshold + slack
        if self.comparison == ">":
            return value > threshold
        if self.comparison == ">=":
            return value >= threshold
        return value < threshold if self.comparison == "<" else value <= threshold

    @property
    def endless(self) -> bool:
        """Whether an alarm, once raised, could never end: its hysteresis reaches beyond what can be measured."""
        if self.window_s is not None:
            return self.hysteresis >= self.threshold
        if self.comparison[0] == "<":
            return self.unit == "%" and self.beyond(100.0, slack=self.hysteresis)
        return self.unit != "C" and self.beyond(0.0, slack=self.hysteresis)


def parse_rule(text: str, classes: Classes, areas: Collection[str] = (), *, name: str = "") -> Rule:
    """Read a rule.

    Args:
        text: as its author wrote it.
        classes: of the model.
        areas: names of the areas there are.
        name: short name; the text where empty.

    Raises:
        UsageError: it is no rule; tells the word and its character, from 1, and what could stand there.
    """
    return _Parser(text, classes, areas, name).rule()


def write_rule(rule: Rule, classes: Classes) -> str:
    """Return a rule in the language, every default spelt out; parsing it gives an equal rule."""
    change = rule.window_s is not None
    unit = "" if rule.unit == "count" else f" {rule.unit}"
    condition = "rises" if change else rule.comparison
    parts = [_subject(rule, classes), rule.quantity, condition, _number(rule.threshold) + unit]
    if rule.window_s is not None:
        parts.append(f"in {_number(rule.window_s)} s")
    if rule.area is not None:
        parts.append(f"in {_quoted(rule.area)}")
    parts += [f"for {_number(rule.for_s)} s", f"hysteresis {_number(rule.hysteresis)}{unit}"]
    return " ".join([*parts, f"again after {_number(rule.again_s)} s"])


def _subject(rule: Rule, classes: Classes) -> str:
    if not rule.any:
        return _quoted(rule.classes[0])
    spared = [_quoted(name) for name in _meant(rule, classes) if name not in rule.classes]
    return f"any except {', '.join(spared)}" if spared else "any"


def _meant(rule: Rule, classes: Classes) -> tuple[str, ...]:
    return _all(rule.quantity, rule.window_s, classes)


def _all(quantity: str, window_s: float | None, classes: Classes) -> tuple[str, ...]:
    """Return what "any" means: where regions or their areas count, the background does not."""
    heat = quantity in _TEMPERATURES and window_s is None
    return classes.names if heat else classes.names[1:]


def _quoted(name: str) -> str:
    plain = PLAIN.fullmatch(name) and name.lower() not in _LANGUAGE
    return name if plain else f"'{name}'" if '"' in name else f'"{name}"'


def _number(value: float) -> str:
    return np.format_float_positional(value, trim="-")


class _Parser:
    """One rule being read, from left to right."""

    def __init__(self, text: str, classes: Classes, areas: Collection[str], name: str) -> None:
        self._text, self._name, self._classes, self._areas = text, name, classes, areas
        self._words = split(text, self._where)
        self._next = 0

    def rule(self) -> Rule:
        start = self._peek()
        every, named = self._subject()
        quantity, comparison = self._condition()
        threshold, unit = self._threshold(quantity, change=comparison is None)
        window_s = self._window() if comparison is None else None
        meant = _all(quantity, window_s, self._classes)
        chosen = tuple(n for n in meant if n not in named) if every else named
        if not chosen or not set(chosen) <= set(meant):
            self._refuse(start, f"No {'change' if window_s else quantity} can be told of the background alone")
        band = _BAND_C if unit == "C" else 0.0 if unit == "count" else _SHARE * threshold
        clauses = self._clauses(quantity, unit, min(band, threshold / 2) if window_s else band)
        text = self._text.strip()
        given = (chosen, quantity, threshold, unit, comparison or ">", window_s)
        rule = Rule(*given, **clauses, any=every, name=self._name or text, text=text)  # type: ignore[arg-type]
        if rule.endless:
            self._refuse(start, "An alarm of this rule would never end", "Lower its hysteresis, or move its threshold.")
        return rule

    # The subject.

    def _subject(self) -> tuple[bool, tuple[str, ...]]:
        """Return (whether it is "any", the classes it names: those meant, after "any" those spared)."""
        if not self._take("any"):
            return False, (self._class(),)
        if not self._take("except"):
            return True, ()
        named = [self._class()]
        while self._take(",") or self._take("and"):
            named.append(self._class())
        return True, tuple(named)

    def _class(self) -> str:
        word = self._peek()
        if word.text in self._classes.names and word.is_name:
            self._next += 1
            self._refuse_split_name(word)
            return word.text
        self._suggest_quotes(word)
        if not word.is_name:
            self._refuse(word, f"Here belongs a class, not {word}", f"Classes: {', '.join(self._classes.names)}.")
        self._refuse(word, f"No class is called {word}", near(word.text, self._classes.names))

    def _refuse_split_name(self, word: Word) -> None:
        """A class "dog" must not hide the rest of "dog house"."""
        if not word.quoted and self._peek().is_name and self._peek().text.lower() not in _LANGUAGE:
            self._suggest_quotes(word)

    def _suggest_quotes(self, word: Word) -> None:
        rest = self._text[word.start :].lower()
        for name in self._classes.names:
            if not word.quoted and not PLAIN.fullmatch(name) and rest.startswith(name.lower()):
                self._refuse(word, f"The class {name} needs quotation marks", f"Write {_quoted(name)}.")

    # The condition.

    def _condition(self) -> tuple[Quantity, Comparison | None]:
        """Return (what is measured, how it is compared; None: by its rise)."""
        if self._take("rises"):
            return "max", None
        word = self._word()
        quantity = next((known for known in get_args(Quantity) if known == word.text.lower()), None)
        if quantity is None or word.quoted:
            known = (*get_args(Quantity), "rises")
            self._refuse(word, f"Here belongs what is measured, not {word}", near(word.text, known))
        if quantity in _TEMPERATURES and self._take("rises"):
            return quantity, None
        return quantity, self._comparison()

    def _comparison(self) -> Comparison:
        word = self._word()
        if word.kind != "comparison":
            self._refuse(word, f"Here belongs a comparison, not {word}", "Write >, >=, < or <=.")
        found: Comparison = next(known for known in get_args(Comparison) if known == word.text)
        return found

    def _threshold(self, quantity: Quantity, *, change: bool) -> tuple[float, Unit]:
        word = self._peek()
        value = self._number()
        unit = self._unit(quantity)
        if quantity in _TEMPERATURES:
            factor, offset = _DEGREES[unit]
            value = value * factor + (0.0 if change else offset)
            if value <= (0 if change else -_KELVIN):
                self._refuse(word, "A rise must be above 0" if change else "No temperature is below absolute zero")
            return value, "C"
        if value < 0 or (unit == "%" and value > 100):
            self._refuse(word, f"No {quantity} can be {value:g} {unit}".rstrip())
        return value, "%" if unit == "%" else "px" if unit == "px" else "count"

    def _unit(self, quantity: Quantity) -> str:
        """Return the unit, in small letters; of a count there is none."""
        if quantity == "count":
            return ""
        known = _DEGREES if quantity in _TEMPERATURES else {"%": 0, "px": 0}
        word = self._word()
        unit = {"celsius": "c", "degc": "c", "degf": "f"}.get(
            word.text.lower().lstrip("°"), word.text.lower().lstrip("°")
        )
        if unit not in known or word.quoted:
            shown = "C, F or K" if quantity in _TEMPERATURES else "% or px"
            self._refuse(word, f"Here belongs a unit, not {word}", f"Write {shown}.")
        return unit

    def _window(self) -> float:
        word = self._word()
        if not word.means("in"):
            self._refuse(word, f"Here belongs in and a time, not {word}", "A rise is written: rises 5 C in 10 s.")
        word = self._peek()
        if not (window := self._duration()):
            self._refuse(word, "A rise needs a time above 0")
        return window

    # What may follow.

    def _clauses(self, quantity: Quantity, unit: Unit, band: float) -> dict[str, str | float | None]:
        found: dict[str, str | float | None] = {}
        while not (word := self._peek()).is_end:
            self._next += 1
            key, value = self._clause(word, quantity, unit)
            if key in found:
                self._refuse(word, f"{word} stands here for the second time")
            found[key] = value
        return {"hysteresis": band, **found}

    def _clause(self, word: Word, quantity: Quantity, unit: Unit) -> tuple[str, str | float]:
        """Return the field of the rule that a clause sets, and its value."""
        if word.means("in"):
            return "area", self._area()
        if word.means("for"):
            return "for_s", self._duration()
        if word.means("hysteresis"):
            return "hysteresis", self._hysteresis(quantity, unit)
        if word.means("again"):
            return "again_s", self._again()
        known = ("in", "for", "hysteresis", "again after")
        self._refuse(word, f"Nothing of a rule begins with {word}", near(word.text, known))

    def _area(self) -> str:
        word = self._word()
        if word.is_name and word.text in self._areas:
            return word.text
        if not self._areas:
            self._refuse(word, f"No area is called {word}", "The scene file has no [areas] yet.")
        self._refuse(word, f"No area is called {word}", near(word.text, self._areas))

    def _hysteresis(self, quantity: Quantity, unit: Unit) -> float:
        word = self._peek()
        value = self._number()
        if value < 0:
            self._refuse(word, "A hysteresis is not below 0")
        if unit == "C":
            return value * _DEGREES[self._unit(quantity)][0]
        word = self._peek()
        if unit != "count" and self._unit(quantity) != unit:
            self._refuse(word, f"The hysteresis is in the unit of the threshold, {unit}")
        return value

    def _again(self) -> float:
        word = self._word()
        if not word.means("after"):
            self._refuse(word, f"Here belongs after, not {word}", "Write again after 60 s.")
        return self._duration()

    # Words.

    def _duration(self) -> float:
        word = self._peek()
        value = self._number()
        unit = self._word()
        if unit.text.lower() not in _SECONDS or unit.quoted:
            self._refuse(unit, f"Here belongs a unit of time, not {unit}", "Write ms, s, min or h.")
        seconds = value * _SECONDS[unit.text.lower()]
        if not 0 <= seconds < 1e9:
            self._refuse(word, "A time is not below 0, nor beyond 30 years")
        return seconds

    def _number(self) -> float:
        word = self._word()
        if word.kind != "number":
            self._refuse(word, f"Here belongs a number, not {word}")
        if not math.isfinite(float(word.text)):
            self._refuse(word, "This number is too large")
        return float(word.text)

    def _peek(self) -> Word:
        return self._words[self._next]

    def _word(self) -> Word:
        word = self._words[self._next]
        if not word.is_end:
            self._next += 1
        return word

    def _take(self, text: str) -> bool:
        found = self._peek().means(text)
        self._next += found
        return found

    def _refuse(self, word: Word, what: str, remedy: str | None = None) -> NoReturn:
        raise UsageError(what, where=self._where(word.start), remedy=remedy)

    def _where(self, start: int) -> str:
        label = f"rule {self._name}, " if self._name else ""
        return f"{label}character {start + 1} of: {self._text}"
