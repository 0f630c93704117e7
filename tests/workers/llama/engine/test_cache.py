"""The prefix tree against a plain model of it: for each sequence, the list of its cells."""

from __future__ import annotations

from array import array

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from workers.llama.engine.cache import OPERATOR, Match, PrefixTree, common

tokens_of = st.lists(st.integers(0, 2), max_size=12).map(lambda t: array("i", t))
owners_of = st.sampled_from([OPERATOR, "a", "b"])


@given(tokens_of, tokens_of)
def test_common_is_the_length_of_the_common_beginning(a: array[int], b: array[int]) -> None:
    n = common(a, b)
    assert a[:n] == b[:n]
    assert n == min(len(a), len(b)) or a[n] != b[n]


class TreeAgainstLists(RuleBasedStateMachine):
    """Each sequence as a list of (cell id, token, owner); cells in use are the distinct ids."""

    seqs = Bundle("seqs")

    def __init__(self) -> None:
        super().__init__()
        self.tree = PrefixTree()
        self.lists: dict[int, list[tuple[int, int, str]]] = {}
        self.next_seq = 0
        self.next_cell = 0

    @rule(target=seqs, tokens=tokens_of, tenant=st.sampled_from("ab"))
    def begin(self, tokens: array[int], tenant: str) -> int:
        found = self.tree.match(tokens, tenant)
        usable = [0]
        for cells in self.lists.values():
            n = 0
            while n < min(len(cells), len(tokens)) and cells[n][1] == tokens[n] and cells[n][2] in (OPERATOR, tenant):
                n += 1
            usable.append(n)
        assert found.length == max(usable), "the longest prefix that this tenant may use"
        seq, self.next_seq = self.next_seq, self.next_seq + 1
        self.tree.start(seq, found.seq, found.length)
        self.lists[seq] = self.lists[found.seq][: found.length] if found.length else []
        return seq

    @rule(seq=seqs, tokens=tokens_of, owner=owners_of)
    def extend(self, seq: int, tokens: array[int], owner: str) -> None:
        self.tree.extend(seq, tokens, owner)
        for token in tokens:
            self.lists[seq].append((self.next_cell, token, owner))
            self.next_cell += 1

    @rule(seq=seqs, keep=st.integers(1, 20))
    def cut(self, seq: int, keep: int) -> None:
        self.tree.cut(seq, keep)
        self.lists[seq] = self.lists[seq][:keep]

    @rule(seq=consumes(seqs))
    def drop(self, seq: int) -> None:
        self.tree.cut(seq, 0)
        del self.lists[seq]

    @invariant()
    def books_agree(self) -> None:
        assert self.tree.cells == len({cell[0] for cells in self.lists.values() for cell in cells})
        for seq, cells in self.lists.items():
            assert self.tree.length(seq) == len(cells)
            others = {c[0] for s, held in self.lists.items() if s != seq for c in held}
            assert self.tree.own(seq) == sum(c[0] not in others for c in cells)


TestTreeAgainstLists = TreeAgainstLists.TestCase
TestTreeAgainstLists.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def filled(*rows: tuple[int, list[int], int, str]) -> PrefixTree:
    """Idle sequences: (sequence, tokens, how many are the operator's, tenant), in order of their last use."""
    tree = PrefixTree()
    for step, (seq, tokens, operator, tenant) in enumerate(rows):
        line = array("i", tokens)
        found = tree.match(line, tenant)
        tree.start(seq, found.seq, found.length)
        tree.extend(seq, line[found.length : operator], OPERATOR)
        tree.extend(seq, line[max(found.length, operator) :], tenant)
        tree.rest(seq, step)
    return tree


def test_a_tenant_cannot_tell_what_another_wrote() -> None:
    tree = filled((0, [1, 2, 3, 4, 5], 2, "a"))
    assert tree.match(array("i", [1, 2, 3, 4, 5]), "b") == Match(2, 0)
    assert tree.match(array("i", [1, 2, 3, 4, 5]), "a") == Match(5, 0)


def test_operator_words_behind_a_tenants_own_are_not_for_others() -> None:
    tree = filled((0, [1, 2, 3], 0, "a"))
    tree.extend(0, array("i", [9, 9]), OPERATOR)
    assert tree.match(array("i", [1, 2, 3, 9, 9]), "b").length == 0


def test_a_shared_prefix_takes_its_cells_once() -> None:
    system = list(range(100))
    tree = filled(*((i, [*system, 200 + i], 100, f"tenant {i}") for i in range(8)))
    assert tree.cells == 108


def test_the_longest_unused_conversation_gives_way_first_and_the_operators_prefix_last() -> None:
    tree = filled((0, [1, 2, 3], 2, "a"), (1, [1, 2, 4], 2, "b"), (2, [7, 8], 0, "a"))
    gone = []
    while (cut := tree.weakest()) is not None:
        gone.append((cut.seq, cut.keep))
        tree.cut(cut.seq, cut.keep)
    assert gone == [(0, 0), (1, 2), (2, 0), (1, 0)]
    assert tree.cells == 0


def test_a_sequence_of_which_another_holds_all_is_redundant() -> None:
    tree = filled((0, list(range(40)), 0, "a"), (1, [*range(40), 50, 51], 0, "a"))
    assert tree.redundant() == 0
    tree.cut(0, 0)
    assert tree.redundant() == -1


def test_spare_counts_what_only_idle_sequences_hold() -> None:
    tree = filled((0, [1, 2, 3, 4], 2, "a"))
    tree.start(1, 0, 2)
    tree.extend(1, array("i", [9]), "b")
    assert (tree.cells, tree.spare()) == (5, 2)
