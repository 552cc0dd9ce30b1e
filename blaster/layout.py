"""Layouts: int64 words with names over memory that processes, or Python and C, share.

A layout is declared once, as a class whose attributes are its words in their order::

    class Answers(Layout):
        accepted = Word()
        by_status = Words(600)

    answers = Answers(np.zeros(Answers.size, np.int64))
    answers.accepted += 1

A subclass goes on after the words of its base, as a C struct does whose first member is another.
"""

from __future__ import annotations

from typing import Any, ClassVar, Self, overload

import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]


class Word:
    """One word: an int of an instance, and the Word itself of the class."""

    size = 1

    def __init__(self) -> None:
        self.name = ""
        self.index = 0

    @overload
    def __get__(self, layout: None, owner: type[Layout]) -> Word: ...
    @overload
    def __get__(self, layout: Layout, owner: type[Layout]) -> int: ...
    def __get__(self, layout: Layout | None, owner: type[Layout]) -> Word | int:
        if layout is None:
            return self
        value: int = layout.ints[self.index]
        return value

    def __set__(self, layout: Layout, value: int) -> None:
        layout.ints[self.index] = value

    def __index__(self) -> int:
        """The word's place, so that an array of words can be indexed by it."""
        return self.index


class Words:
    """``size`` words: a view of the memory (int64) of an instance."""

    def __init__(self, size: int) -> None:
        self.name = ""
        self.index = 0
        self.size = size

    @overload
    def __get__(self, layout: None, owner: type[Layout]) -> Words: ...
    @overload
    def __get__(self, layout: Layout, owner: type[Layout]) -> Int64: ...
    def __get__(self, layout: Layout | None, owner: type[Layout]) -> Words | Int64:
        if layout is None:
            return self
        return layout.words[self.index : self.index + self.size]


class Layout:
    """Named words over an array (int64; ValueError for fewer than ``size``).

    ``words``: the array, as long as the layout; ``ints``: the same as plain ints, which are quicker
    to read and write one by one.
    """

    fields: ClassVar[tuple[Word | Words, ...]] = ()
    size: ClassVar[int] = 0

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for name, field in vars(cls).copy().items():
            if isinstance(field, Word | Words):
                field.name, field.index = name, cls.size
                cls.fields += (field,)
                cls.size += field.size

    def __init__(self, words: Int64) -> None:
        if len(words) < self.size:
            raise ValueError(f"{len(words)} words, not {self.size}")
        self.words = words[: self.size]
        self.ints = self.words.data

    @classmethod
    def zeros(cls) -> Self:
        """An instance in memory of its own, all zero."""
        return cls(np.zeros(cls.size, np.int64))

    def array(self, first: Word, last: Word | None = None) -> Int64:
        """A view (int64) of one word, or of all from ``first`` to ``last``."""
        return self.words[first.index : (last or first).index + 1]
