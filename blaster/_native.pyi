"""The C kernel: stamping batches and scanning requests."""

from typing_extensions import Buffer

class Template:
    """Prebuilt bytes and the places in them to patch; every slot is checked on construction.

    ``frames``: tuple of (tag, prefix bytes), outermost first. ``strides``: the bytes that a trace
    takes of each column. ``variants``: tuple of (bytes, tuple of (offset, width, column, shift)).
    Raises ValueError when a slot does not fit its variant or its column.
    """

    def __init__(
        self,
        frames: tuple[tuple[int, bytes], ...],
        strides: tuple[int, ...],
        variants: tuple[tuple[bytes, tuple[tuple[int, int, int, int], ...]], ...],
    ) -> None: ...
    def stamp_bytes(
        self, columns: tuple[Buffer, ...], variants: Buffer, counts: Buffer, /
    ) -> list[bytes]:
        """One ``bytes`` for each batch; ``variants`` uint8, one a trace, ``counts`` int64."""

    def stamp_into(
        self,
        columns: tuple[Buffer, ...],
        variants: Buffer,
        counts: Buffer,
        out: Buffer,
        offsets: Buffer,
        /,
    ) -> int:
        """The batches one after another into ``out``; ``offsets`` (int64, batches + 1) cut it.

        Returns the bytes written. Raises ValueError when ``out`` is too small.
        """
