"""The streams of the 4D model: one pointmap and one RGB video per view, denoised side by side in one batch.

A stream is (view, modality); view 0 is the reference. A link says which streams attend to which:
'points' and 'rgb' let every other view's stream attend to the reference view's stream of the same
modality (the paper uses 'points' only); 'rgb_from_points' and 'points_from_rgb' couple the two
modalities of one view (after X-WAM and MVISTA-4D).
"""

from __future__ import annotations

from typing import NamedTuple

from geo4d_ros.errors import ConfigurationError, require

POINTS, RGB = 0, 1
LINKS = ('points', 'rgb', 'rgb_from_points', 'points_from_rgb')
DECODERS = {'shared': 1, 'per_view': 2, 'per_view_points': 3}
ROUTINGS = ('own', 'released', 'learned')


class Stream(NamedTuple):
    """One video: view index (0 = reference) and modality (POINTS or RGB)."""

    view: int
    modality: int


def all_streams(views: int, points: bool = True) -> list[Stream]:
    """Every stream in the order of every batch: points (unless the model has none) then RGB, view by view."""
    return [Stream(view, modality) for view in range(views) for modality in ((POINTS, RGB) if points else (RGB,))]


def source_of(stream: Stream, link: str) -> Stream | None:
    """The stream that `stream` attends to under `link`, or None."""
    if link in ('points', 'rgb'):
        modality = POINTS if link == 'points' else RGB
        return Stream(0, modality) if stream.modality == modality and stream.view > 0 else None
    if link == 'rgb_from_points':
        return Stream(stream.view, POINTS) if stream.modality == RGB else None
    if link == 'points_from_rgb':
        return Stream(stream.view, RGB) if stream.modality == POINTS else None
    raise ConfigurationError(f'unknown cross-attention link {link!r}; known: {", ".join(LINKS)}')


def link_indices(streams: list[Stream], link: str) -> tuple[list[int], list[int]]:
    """Positions of the attending streams and of the streams they attend to; both empty when there are none."""
    queries, keys = [], []
    for index, stream in enumerate(streams):
        source = source_of(stream, link)
        if source is None:
            continue
        require(source in streams, f'stream {tuple(stream)} attends to {tuple(source)}, which is not in the batch')
        queries.append(index)
        keys.append(streams.index(source))
    return queries, keys


def needed_streams(wanted: list[Stream], links: tuple[str, ...]) -> list[Stream]:
    """`wanted` and every stream that one of them attends to, directly or not, in batch order.

    Streams that nobody attends to and nobody wants need not be denoised at all: their absence
    changes no number of the others.
    """
    needed, queue = set(wanted), list(wanted)
    while queue:
        stream = queue.pop()
        sources = {source_of(stream, link) for link in links} - {None} - needed
        needed |= sources
        queue.extend(sources)
    return sorted(needed)


def decoder_of(stream: Stream, decoders: str) -> int:
    """Which of the model's decoders a stream uses.

    'shared': one (the released weights); 'per_view': one for the reference and one for all other
    views (the paper's 2.4 B parameters); 'per_view_points': RGB of all views, pointmaps of the
    reference, pointmaps of the others.
    """
    if decoders == 'shared':
        return 0
    if decoders == 'per_view':
        return int(stream.view > 0)
    if decoders == 'per_view_points':
        return 0 if stream.modality == RGB else 1 + int(stream.view > 0)
    raise ConfigurationError(f'unknown decoders {decoders!r}; known: {", ".join(DECODERS)}')


def token_view(stream: Stream, routing: str, views: int) -> int:
    """The view whose image token conditions `stream`.

    'own': its own. 'released': pointmaps of all views get the reference's token and RGB of all
    views the second view's, as the released code does.
    """
    if routing == 'own':
        return stream.view
    if routing == 'released':
        return 0 if stream.modality == POINTS else min(1, views - 1)
    raise ConfigurationError(f'unknown token routing {routing!r}; known: own, released')
