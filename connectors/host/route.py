"""Which model answers a message, and why. Pure: what is asked, what is configured and what lives, in; a model out.

The order of the rules is the table in docs/components/connectors.md. What always holds: a request that names a model
is answered by it or by its own `fallback`; load moves a conversation never, a single request only between equals;
without a live model that could answer, the one that should have been chosen keeps the message in its queue.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from msgspec import Struct

from connectors.host.classify import classify, follows
from connectors.host.commands import command_of
from connectors.host.explain import Reason, why
from connectors.host.language import language_of
from connectors.host.recall import NEW, Last, tokens_of
from schemas.config import ModelConfig, routes_of
from schemas.errors import Rejected, Retryable
from schemas.message import Attachment, Kind, Route

AUTO = "auto"
"""Names no model: the same as nothing."""
ANSWER_TOKENS = 256
"""Room for an answer that a model's window must leave."""
BY_TYPE: dict[str, tuple[Kind, ...]] = {"diffusion": ("image",), "embedding": ("embedding",)}
TALKS: tuple[Kind, ...] = ("chat", "completion")
TALK_OF: dict[Kind, Kind] = {"code": "chat", "long": "chat"}
"""Kinds that are conversations: every backend that chats can answer them."""
SOURCE = re.compile(
    r"\.(?:py|js|mjs|ts|jsx|tsx|java|c|h|cc|cpp|hpp|cs|go|rs|rb|php|swift|kt|scala|sh|sql|html|css|vue|svelte|lua|r|pl"
    r"|ipynb|diff|patch)$",
    re.IGNORECASE,
)
"""Names of files that programmers write."""
PAINTERS = frozenset({"n", "adapter"})
"""Abilities that a request for a picture may want."""
REMEDY: dict[Kind, str] = {
    "image": "; add a model of type diffusion to `models:` in config.yaml (docs/components/diffusion.md)",
}
STATES = ("ready", "loading", "asleep")
"""Of live models, the soonest to answer first."""


class Seat(Struct, frozen=True, kw_only=True):
    """One model as its live workers tell it."""

    state: str
    """One of `STATES`."""
    kinds: tuple[Kind, ...] = TALKS
    abilities: tuple[str, ...] = ()
    context: int = 0
    slots: int = 1


class Asked(Struct, frozen=True, kw_only=True):
    """A request before it has a model."""

    text: str = ""
    """The newest message."""
    model: str = ""
    kind: Kind = "auto"
    usual: str = ""
    """The connector's own model."""
    typed: bool = True
    """Somebody typed the text here: it may begin with a command, and a picture may answer it."""
    language: str = ""
    """The sender's, where the text does not tell."""
    tokens: int = 0
    """What text, history and the request's own system prompt come to, about."""
    attachments: tuple[Attachment, ...] = ()
    abilities: frozenset[str] = frozenset()
    """What the request wants beyond text."""
    last: Last = NEW
    """The conversation as it was left."""


class Chosen(Struct, frozen=True, kw_only=True):
    """The model, the kind in the place of `auto`, and the text without its command."""

    model: str
    text: str
    route: Route

    @property
    def kind(self) -> Kind:
        return self.route.kind


Seats = Mapping[str, Seat]


def route(
    asked: Asked, models: Sequence[ModelConfig], seats: Seats | None = None, depths: Mapping[str, int] | None = None
) -> Chosen:
    """Choose. `seats` has the live models (None: nobody knows), `depths` their unfinished messages.

    Raises `Rejected` for a name that there is not, and for a kind that no model can do; `Retryable` for a picture that
    no live model can make: nobody waits for one unawares, where text would be answered at once.
    """
    named = "" if asked.model == AUTO else asked.model
    if named:
        return _named(named, asked.kind, asked.text, "named", models, seats, typed=asked.typed)
    text, kind, word = asked.text, asked.kind, ""
    if asked.typed and kind == "auto":
        command = command_of(text, models)
        text, kind, word = command.text, command.kind, command.word
        if word and not text.strip() and not asked.attachments:
            raise Rejected(f"write what you want behind {word}", code="empty")
        if command.model:
            return _named(command.model, "auto", text, "command", models, seats, word)
    if kind == "auto" and any(_is_source(file) for file in asked.attachments):
        kind = "code"
    if asked.usual and not word and (kind == "auto" or _can(_of(asked.usual, models), kind, seats)):
        return _named(asked.usual, kind, text, "named", models, seats)
    guessed = kind == "auto"
    if guessed:
        kind = _guess(asked, text, models, seats)
    choice = _Choice(asked, text, kind, models, seats, depths or {})
    if not choice.able:
        if not guessed and kind != "chat":
            remedy = REMEDY.get(kind, "")
            raise Rejected(f"no model here answers requests of kind {kind}{remedy}", code="unsupported_kind")
        return _named(models[0].name, "auto", text, "default", models, seats)
    if kind == "image" and not any(_lives(model.name, seats) for model in choice.able):
        names = ", ".join(model.name for model in choice.able)
        raise Retryable(
            f"no model that makes pictures is ready ({names}); `roost status` says why",
            after_s=5.0,
            code="no_live_model",
        )
    return choice.made(word)


def _of(name: str, models: Sequence[ModelConfig]) -> ModelConfig:
    for model in models:
        if model.name == name:
            return model
    names = ", ".join(model.name for model in models)
    raise Rejected(f"there is no model {name!r}; there are: {names}", code="unknown_model")


def _backend_kinds(model: ModelConfig, seats: Seats | None) -> tuple[Kind, ...]:
    """What the backend can do: as its live worker says, else as its type is known for."""
    seat = seats.get(model.name) if seats else None
    return seat.kinds if seat is not None else BY_TYPE.get(model.type, TALKS)


def _can(model: ModelConfig, kind: Kind, seats: Seats | None) -> bool:
    return TALK_OF.get(kind, kind) in _backend_kinds(model, seats)


def _lives(name: str, seats: Seats | None) -> bool:
    return seats is None or name in seats


def _named(
    name: str,
    kind: Kind,
    text: str,
    reason: Reason,
    models: Sequence[ModelConfig],
    seats: Seats | None,
    word: str = "",
    *,
    typed: bool = True,
) -> Chosen:
    """This model, or the first of its `fallback` that lives while it does not."""
    model = _of(name, models)
    wanted = ""
    if not _lives(name, seats):
        for other in routes_of(model).fallback:
            if _lives(other, seats):
                model, wanted, reason = _of(other, models), name, "failover"
                break
    if kind == "auto":
        kind = _own_kind(model, seats, text if typed else "")
    found = Route(kind=kind, reason=reason, wanted=wanted, why=why(reason, kind=kind, wanted=wanted, word=word))
    return Chosen(model=model.name, text=text, route=found)


def _own_kind(model: ModelConfig, seats: Seats | None, text: str) -> Kind:
    """What a request is that names a model and no kind: of the model's own kinds the one that the text speaks of."""
    kinds = routes_of(model).kinds or _backend_kinds(model, seats)
    if "chat" in kinds:
        return "code" if "code" in kinds and classify(text) == "code" else "chat"
    return kinds[0]


def _is_source(file: Attachment) -> bool:
    media = file.media_type
    return media.startswith("text/x-") or media.endswith("javascript") or SOURCE.search(file.name) is not None


def _guess(asked: Asked, text: str, models: Sequence[ModelConfig], seats: Seats | None) -> Kind:
    """The kind that the text speaks of; a picture only where one can be made and shown."""
    kind: Kind = classify(text)
    if kind == "image":
        painter = any(_can(model, "image", seats) and _lives(model.name, seats) for model in models)
        return "image" if painter and asked.typed and asked.abilities <= PAINTERS else "chat"
    if kind == "chat" and asked.last.kind == "code" and follows(text):
        return "code"
    return kind


Rule = tuple[Reason, Callable[[ModelConfig], tuple[int, int] | int]]


class _Choice:
    """The choice among several models: what counts, one after the other; the first that differs decides."""

    def __init__(
        self,
        asked: Asked,
        text: str,
        kind: Kind,
        models: Sequence[ModelConfig],
        seats: Seats | None,
        depths: Mapping[str, int],
    ) -> None:
        self._asked, self._text, self._kind = asked, text, kind
        self._models, self._seats, self._depths = models, seats, depths
        self._language = language_of(text) or ("" if asked.last.model else asked.language.lower()[:2])
        self._fit: tuple[Rule, ...] = (("context", self._room), ("kind", self._kin), ("language", self._tongue))
        self.able = [m for m in models if _can(m, kind, seats) and self._has_abilities(m)]
        self.able = self.able or [m for m in models if _can(m, kind, seats)]

    def _has_abilities(self, model: ModelConfig) -> bool:
        """A worker refuses what its backend cannot do; where nobody lives, nobody knows."""
        seat = self._seat(model)
        return seat is None or self._asked.abilities.issubset(seat.abilities)

    def made(self, word: str) -> Chosen:
        should, reason = self._best(self.able, *self._fit)
        living = [model for model in self.able if _lives(model.name, self._seats)]
        model, _ = self._best(living or self.able, *self._fit, ("load", self._waits), ("load", self._queue))
        wanted = should.name if model is not should else ""
        if wanted:
            reason = "load" if should in living else "failover"
        elif word:
            reason = "command"
        sentence = why(reason, kind=self._kind, wanted=wanted, word=word, language=self._language)
        found = Route(kind=self._kind, reason=reason, wanted=wanted, why=sentence)
        return Chosen(model=model.name, text=self._text, route=found)

    def _best(self, models: Sequence[ModelConfig], *rules: Rule) -> tuple[ModelConfig, Reason]:
        """The best by these rules, and the rule by which it is another than the usual one.

        A conversation stays where it was among models that the rules before load leave.
        """
        usual = self._usual()
        reason: Reason = "default" if usual in models else "kind"
        for name, key in rules:
            if name == "load" and (last := self._last(models)) is not None:
                return last, reason
            best = min(map(key, models))
            kept = [model for model in models if key(model) == best]
            if usual in models and usual not in kept:
                reason = name
            models = kept
        return self._last(models) or min(models, key=self._order), reason

    def _last(self, models: Sequence[ModelConfig]) -> ModelConfig | None:
        """The model that the conversation had, if it is among these."""
        return next((model for model in models if model.name == self._asked.last.model), None)

    def _usual(self) -> ModelConfig:
        """The model that answers when nothing speaks for another."""
        talkers = [m for m in self._models if _can(m, "chat", self._seats)]
        return min(talkers or self._models, key=lambda m: (self._kin_of(m, "chat"), self._order(m)))

    # -- the rules ------------------------------------------------------------------------------------------------

    def _seat(self, model: ModelConfig) -> Seat | None:
        return self._seats.get(model.name) if self._seats else None

    def _room(self, model: ModelConfig) -> tuple[int, int]:
        """Windows that hold the prompt; where none does, the widest."""
        seat = self._seat(model)
        window = seat.context if seat is not None else 0
        system = tokens_of(model.system) if model.system else 0
        if not window or self._asked.tokens + system + ANSWER_TOKENS <= window:
            return (0, 0)
        return (1, -window)

    def _kin(self, model: ModelConfig) -> int:
        return self._kin_of(model, self._kind)

    @staticmethod
    def _kin_of(model: ModelConfig, kind: Kind) -> int:
        """How much it is for this kind: marked for it, can do it, does it when there is need."""
        marked = routes_of(model).kinds
        if kind in marked or (not marked and kind not in TALK_OF):
            return 0
        if not marked or "chat" in marked:
            return 1
        return 2 if "long" in marked else 3

    def _tongue(self, model: ModelConfig) -> int:
        """Models that list the text's language, those that list none, those that list others."""
        listed = [each.lower()[:2] for each in routes_of(model).languages]
        if not self._language or not listed:
            return 1
        return 0 if self._language in listed else 2

    def _waits(self, model: ModelConfig) -> int:
        seat = self._seat(model)
        return STATES.index(seat.state) if seat is not None and seat.state in STATES else len(STATES)

    def _queue(self, model: ModelConfig) -> int:
        """Whole rounds of its slots before a new message would begin."""
        seat = self._seat(model)
        slots = max(1, seat.slots if seat is not None else 1)
        return max(0, self._depths.get(model.name, 0) + 1 - slots) // slots

    def _order(self, model: ModelConfig) -> tuple[bool, int]:
        return (not model.default, self._models.index(model))
