"""A refusal: a decision not to do what was asked, with a reason that a program can read."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request was not done. ``code`` is stable; ``detail`` is for people."""

    code: str
    detail: str
