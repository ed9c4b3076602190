"""What the networks promise: causality, padding that does not matter, content that carries an
item nobody bought, and TorchRec tables that equal plain look-ups."""

import numpy as np
import pytest
import torch

from contract.encoding import FIRST_ITEM, LENGTH, OOV, PAD, TOKENS, Situation
from contract.events import EventContext
from contract.features import UNKNOWN
from training.data.source import Source
from training.fit import Fit
from training.models.embeddings import item_columns
from training.models.sequence_encoder import SequenceEncoder
from training.models.two_tower import ItemTower
from training.recommender import Recommender, neural_side


@pytest.fixture
def encoder() -> SequenceEncoder:
    torch.manual_seed(0)
    return SequenceEncoder(16, blocks=2, heads=2, dropout=0.3).eval()


def test_the_future_does_not_change_the_past(encoder: SequenceEncoder) -> None:
    items = torch.randn(1, LENGTH, 16)
    types, gaps = torch.ones(1, LENGTH, dtype=torch.long), torch.ones(1, LENGTH, dtype=torch.long)
    before = encoder(items, types, gaps)
    items[0, 30:] = torch.randn(LENGTH - 30, 16)
    after = encoder(items, types, gaps)
    assert torch.allclose(before[0, :30], after[0, :30], atol=1e-6)
    assert not torch.allclose(before[0, 30:], after[0, 30:], atol=1e-3)


def test_the_latest_alone_is_what_it_is_among_all(encoder: SequenceEncoder) -> None:
    items, types, gaps = (
        torch.randn(3, 50, 16),
        torch.randint(0, 4, (3, 50)),
        torch.ones(3, 50).long(),
    )
    with torch.no_grad():
        every, latest = encoder(items, types, gaps), encoder(items, types, gaps, latest=True)
    assert latest.shape == (3, 1, 16)
    torch.testing.assert_close(latest[:, 0], every[:, -1])


def test_what_stands_under_padding_does_not_matter(encoder: SequenceEncoder) -> None:
    items = torch.randn(1, LENGTH, 16)
    types = torch.ones(1, LENGTH, dtype=torch.long)
    types[0, :40] = 0
    gaps = types.clone()
    before = encoder(items, types, gaps)[0, -1]
    items[0, :40] = torch.randn(40, 16)
    assert torch.allclose(before, encoder(items, types, gaps)[0, -1], atol=1e-6)


def test_an_empty_sequence_gives_a_finite_vector(encoder: SequenceEncoder) -> None:
    zeros = torch.zeros(2, LENGTH, dtype=torch.long)
    vector = encoder(torch.zeros(2, LENGTH, 16), zeros, zeros)[:, -1]
    assert torch.isfinite(vector).all()
    assert torch.equal(vector[0], vector[1])


def test_id_dropout_leaves_content(source: Source) -> None:
    vocabulary = source.baskets.vocabulary(2**62, 1)
    columns = item_columns(source.catalogue, vocabulary)
    torch.manual_seed(0)
    tower = ItemTower(columns, 8, id_dropout=1.0)
    item = torch.tensor([FIRST_ITEM, FIRST_ITEM + 1])
    with torch.no_grad():
        nothing = torch.zeros((0, TOKENS), dtype=torch.long)
        dropped, *_ = tower.train()(item, nothing, tower.train().dropped(item))
        ids = tower.eval().tables.embedding_bags["item_id_table"].weight
        ids[item] = ids[OOV].clone()
        assert torch.allclose(dropped, tower.items(item), atol=1e-6)
    assert not torch.allclose(dropped[0], dropped[1])


def test_an_item_nobody_bought_lies_nearer_to_its_kind_than_to_others(
    source: Source, fitted: tuple[Fit, Recommender]
) -> None:
    """Its id is OOV, so its vector is content alone; categories repeat every eight items."""
    _, recommender = fitted
    model, vocabulary = recommender.towers, recommender.vocabulary
    with torch.no_grad():
        vectors = model.item_vectors()[FIRST_ITEM:]
        table = model.item_tower.tables.embedding_bags["item_id_table"].weight
        kept = table.clone()
        table[FIRST_ITEM:] = table[OOV].clone()
        cold = model.item_vectors()[FIRST_ITEM:]
        table.copy_(kept)
    # What all items share says nothing about their kind.
    vectors, cold = (torch.nn.functional.normalize(v - v.mean(0), dim=1) for v in (vectors, cold))
    number = torch.tensor([int(item.removeprefix("item-")) for item in vocabulary.item_ids])
    itself = number[:, None] == number[None]
    alike = (number[:, None] % 8 == number[None] % 8) & ~itself
    closeness = cold @ vectors.T
    assert closeness[alike].mean() > closeness[~alike & ~itself].mean() + 0.1


def test_padding_has_no_vector(fitted: tuple[Fit, Recommender]) -> None:
    with torch.no_grad():
        vectors = fitted[1].towers.item_vectors()
    assert not vectors[PAD].any()
    assert vectors[FIRST_ITEM:].abs().sum(dim=1).min() > 0


def test_search_words_lead_to_their_kind(fitted: tuple[Fit, Recommender]) -> None:
    """With nothing else known, the words of a narrow kind bring that kind to the front."""
    _, recommender = fitted
    vocabulary = recommender.vocabulary

    kinds = ("tea", "bread", "soap", "fruit")
    kind_of = [kinds[int(item.removeprefix("item-")) % 4] for item in vocabulary.item_ids]

    def lead(words: tuple[str, ...], kind: str) -> float:
        """How far the items of `kind` score above all others, on average."""
        side = neural_side(
            recommender.towers, [Situation(UNKNOWN, (), 0, search_terms=words)], vocabulary
        )
        scores = side.item_vectors[FIRST_ITEM:] @ side.query_vectors[0]
        meant = np.array([own == kind for own in kind_of])
        return float(scores[meant].mean() - scores[~meant].mean())

    assert sum(lead((kind,), kind) for kind in kinds) > sum(lead((), kind) for kind in kinds) + 0.05


def test_what_training_never_showed_changes_nothing(fitted: tuple[Fit, Recommender]) -> None:
    """The shop knows one country, one device and no region; other ones are not noise."""
    _, recommender = fitted
    known = EventContext(device="mobile", country="US", timezone="UTC")
    silent = EventContext(device="mobile", timezone="UTC")
    foreign = EventContext(device="mobile", country="NZ", region="Otago", timezone="UTC")
    asked = [Situation(UNKNOWN, (), 0, context) for context in (known, silent, foreign)]
    side = neural_side(recommender.towers, asked, recommender.vocabulary)
    assert np.array_equal(side.query_vectors[1], side.query_vectors[2])
    assert not np.array_equal(side.query_vectors[0], side.query_vectors[1])
    words = [Situation(UNKNOWN, (), 0, search_terms=said) for said in ((), ("zxqv",), ("tea",))]
    side = neural_side(recommender.towers, words, recommender.vocabulary)
    assert np.array_equal(side.query_vectors[0], side.query_vectors[1])
    assert not np.array_equal(side.query_vectors[0], side.query_vectors[2])
