"""A refusal: a decision against a request, with a code for programs."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request was not done. ``code`` is stable; ``detail`` is for people."""

    code: str
    detail: str
