"""Layouts: words with names over an array."""

import numpy as np
import pytest

from blaster.layout import Layout, Word, Words


class Base(Layout):
    """A layout that another begins with."""

    first = Word()
    many = Words(3)


class Whole(Base):
    """One that goes on after it."""

    last = Word()


def test_words_stand_in_their_order() -> None:
    """A subclass goes on after its base; what is written by name stands in the array."""
    array = np.zeros(7, np.int64)
    layout = Whole(array)
    layout.first, layout.last = 1, 5
    layout.first += 6
    layout.many[:] = 2, 3, 4
    assert array.tolist() == [7, 2, 3, 4, 5, 0, 0]
    assert (Base.size, Whole.size, len(layout.words)) == (4, 5, 5)
    assert [field.name for field in Whole.fields] == ["first", "many", "last"]
    assert [field.name for field in Base.fields] == ["first", "many"]
    assert (array[Whole.last], layout.array(Whole.last).tolist()) == (5, [5])
    assert Base(array).array(Base.first).base is not None


def test_refuses_a_short_array() -> None:
    """Words that do not exist cannot be named."""
    with pytest.raises(ValueError, match="4 words, not 5"):
        Whole(np.zeros(4, np.int64))
