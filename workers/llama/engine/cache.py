"""Whose tokens lie in which cells of the context: a prefix tree, and what to give up when cells run short.

Pure bookkeeping: it mirrors what the engine did to the real cells and computes nothing itself. A sequence is a
path from the root; where sequences begin with the same tokens they share cells, so the sum over all nodes is the
number of cells in use.

What always holds: a node is the operator's (`OPERATOR`, for everybody) or one tenant's, and nobody is ever given
a prefix that leads through another tenant's node. So what a cache hit tells a tenant is only its own. What another
adapter of the model computed is never given to anybody else than requests for that adapter.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from typing import TypeVar

from msgspec import Struct

Line = TypeVar("Line", "array[int]", str)
OPERATOR = ""


def serves(owner: str, reader: str) -> bool:
    """May `reader` use what is `owner`'s? The operator's is everybody's, `a`'s is also that of `a/b` below it."""
    return owner in (OPERATOR, reader) or reader.startswith(f"{owner}/")


"""Owner of the operator's words: system prompt, preambles, the model's own template."""
WORTH_KEEPING = 16
"""An idle sequence with fewer cells of its own is given up: its next turn finds the rest in another sequence."""


class Match(Struct, frozen=True):
    """The longest usable prefix: its length, and a sequence that holds these cells (-1 for none)."""

    length: int = 0
    seq: int = -1


class Cut(Struct, frozen=True):
    """Give up what `seq` holds from `keep` on; 0 gives up the sequence."""

    seq: int
    keep: int


class Node:
    """Cells that the same sequences hold, owned by one tenant or the operator."""

    __slots__ = ("children", "owner", "parent", "seqs", "tokens")

    def __init__(self, tokens: array[int], owner: str, parent: Node | None, seqs: Iterable[int]) -> None:
        self.tokens = tokens
        self.owner = owner
        self.parent = parent
        self.children: list[Node] = []
        self.seqs = set(seqs)


def common(a: Line, b: Line) -> int:
    """Length of the common beginning, by bisection over slices that are compared in C."""
    low, high = 0, min(len(a), len(b))
    if a[:high] == b[:high]:
        return high
    while low + 1 < high:
        middle = (low + high) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle
    return low


class PrefixTree:
    """All cells in use. Times are the engine's step numbers, so that ages count work, not waiting."""

    def __init__(self) -> None:
        self._roots: dict[str, Node] = {}
        self._leaf: dict[int, Node] = {}
        self._idle: dict[int, int] = {}
        self.cells = 0

    def __contains__(self, seq: int) -> bool:
        return seq in self._leaf

    @property
    def idle(self) -> tuple[int, ...]:
        """Finished sequences that wait for their next turn, the longest unused first."""
        return tuple(sorted(self._idle, key=lambda s: self._idle[s]))

    def length(self, seq: int) -> int:
        return sum(len(node.tokens) for node in self._path(seq))

    def own(self, seq: int) -> int:
        """Cells that only `seq` holds."""
        return sum(len(node.tokens) for node in self._path(seq) if len(node.seqs) == 1)

    def match(self, tokens: array[int], owner: str, adapter: str = "") -> Match:
        """The longest beginning of `tokens` that `owner` may use, as computed with `adapter`."""
        return self._descend(self._root(adapter), tokens, 0, owner)

    def _descend(self, node: Node, tokens: array[int], at: int, owner: str) -> Match:
        best = Match(at, next(iter(node.seqs), -1)) if at else Match()
        if at == len(tokens):
            return best
        for child in node.children:
            if not serves(child.owner, owner) or child.tokens[0] != tokens[at]:
                continue
            n = common(child.tokens, tokens[at : at + len(child.tokens)])
            if n == len(child.tokens):
                found = self._descend(child, tokens, at + n, owner)
            else:
                found = Match(at + n, next(iter(child.seqs)))
            if found.length > best.length:
                best = found
        return best

    def start(self, seq: int, source: int, length: int, adapter: str = "") -> None:
        """A new sequence begins with the first `length` cells of `source`, which `adapter` computed."""
        node = self._root(adapter)
        if length:
            node = self._node_at(source, length)
            for held in self._up(node):
                held.seqs.add(seq)
        self._leaf[seq] = node

    def extend(self, seq: int, tokens: array[int], owner: str) -> None:
        """`seq` computed `tokens` behind what it has; they are `owner`'s."""
        if not tokens:
            return
        leaf = self._leaf[seq]
        if leaf.parent is not None and leaf.owner == owner and not leaf.children and leaf.seqs == {seq}:
            leaf.tokens.extend(tokens)
        else:
            child = Node(tokens[:], owner, leaf, (seq,))
            leaf.children.append(child)
            self._leaf[seq] = child
        self.cells += len(tokens)

    def spans(self, seq: int) -> list[tuple[int, str]]:
        """Whose the tokens of `seq` are, from the beginning: (tokens, owner)."""
        return [(len(node.tokens), node.owner) for node in reversed(list(self._path(seq)))]

    def rest(self, seq: int, step: int) -> None:
        """`seq` is finished and keeps its cells for the next turn."""
        self._idle[seq] = step

    def cut(self, seq: int, keep: int) -> None:
        """Forget what `seq` holds from `keep` on; at 0 the sequence itself."""
        length = min(keep, self.length(seq))
        stay = self._node_at(seq, length) if length > 0 else self._top(seq)
        left: list[Node] = []
        for node in list(self._path(seq)):
            if node is stay:
                break
            node.seqs.discard(seq)
            if node.seqs:
                left.append(node)
            else:
                assert node.parent is not None
                node.parent.children.remove(node)
                self.cells -= len(node.tokens)
        self._leaf[seq] = stay
        if keep <= 0:
            del self._leaf[seq]
            self._idle.pop(seq, None)
        for node in reversed(left):
            self._merge(node)

    def redundant(self) -> int:
        """The longest unused idle sequence of which others hold nearly everything; -1 when there is none."""
        return next((s for s in self.idle if self.own(s) < min(WORTH_KEEPING, self.length(s))), -1)

    def weakest(self) -> Cut | None:
        """What to give up next for cells; None when no idle sequence is left.

        A token costs the same to compute wherever it stands, so age alone decides between conversations; the
        operator's prefix goes last, because every conversation needs it.
        """
        idle = self.idle
        for seq in idle:
            keep = self.stem(seq)
            if keep < self.length(seq):
                return Cut(seq, keep)
        return Cut(idle[0], 0) if idle else None

    def stem(self, seq: int) -> int:
        """How much of `seq` to keep so that no operator's cell is lost with it."""
        at = keep = 0
        for node in reversed(list(self._path(seq))):
            at += len(node.tokens)
            if node.owner == OPERATOR and len(node.seqs) == 1:
                keep = at
        return keep

    def spare(self) -> int:
        """Cells that only idle sequences hold: what giving up all of them would free."""
        idle = set(self._idle)
        total = 0
        nodes = [node for root in self._roots.values() for node in root.children]
        while nodes:
            node = nodes.pop()
            if node.seqs <= idle:
                total += len(node.tokens)
            nodes.extend(node.children)
        return total

    def older(self, step: int) -> list[int]:
        """Idle sequences that were last used before `step`."""
        return [s for s, at in self._idle.items() if at < step]

    def _root(self, adapter: str) -> Node:
        if adapter not in self._roots:
            self._roots[adapter] = Node(array("i"), OPERATOR, None, ())
        return self._roots[adapter]

    def _top(self, seq: int) -> Node:
        node = self._leaf[seq]
        while node.parent is not None:
            node = node.parent
        return node

    def _merge(self, node: Node) -> None:
        """Join a node with its only child where the same sequences hold both, so that paths stay short."""
        while node.parent is not None and len(node.children) == 1:
            child = node.children[0]
            if child.seqs != node.seqs or child.owner != node.owner:
                return
            node.tokens.extend(child.tokens)
            node.children = child.children
            for grandchild in node.children:
                grandchild.parent = node
            for seq in child.seqs:
                if self._leaf[seq] is child:
                    self._leaf[seq] = node
            child.parent, child.children = None, []

    def _path(self, seq: int) -> Iterator[Node]:
        """Nodes of a sequence from its end to the beginning."""
        return self._up(self._leaf[seq])

    @staticmethod
    def _up(node: Node | None) -> Iterator[Node]:
        while node is not None and node.parent is not None:
            yield node
            node = node.parent

    def _node_at(self, seq: int, length: int) -> Node:
        """The node of `seq` that ends at `length`; a node that goes on beyond is split there."""
        end = self.length(seq)
        for node in list(self._path(seq)):
            begin = end - len(node.tokens)
            if end == length:
                return node
            if begin < length:
                return self._split(node, length - begin)
            end = begin
        raise AssertionError(f"sequence {seq} holds fewer than {length} cells")

    def _split(self, node: Node, at: int) -> Node:
        """Split a node in two; returns the upper one. Every sequence that holds the lower holds the upper."""
        assert node.parent is not None
        upper = Node(node.tokens[:at], node.owner, node.parent, node.seqs)
        siblings = node.parent.children
        siblings[siblings.index(node)] = upper
        node.tokens = node.tokens[at:]
        node.parent = upper
        upper.children.append(node)
        return upper
