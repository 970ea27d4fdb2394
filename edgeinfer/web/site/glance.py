"""The pictures of one source, one after the other, for a request of its own."""

from __future__ import annotations

import asyncio
from functools import partial

from edgeinfer.web.site.views import Views
from edgeinfer.web.viewing.bell import Bell
from edgeinfer.web.viewing.encoding import Encoded, Form
from edgeinfer.web.viewing.gallery import Shot


class Glance:
    """Looks from its making until `close`. Used by the site's thread."""

    def __init__(self, views: Views, source: str) -> None:
        self.source = source
        self._gallery, self._encoder = views.gallery, views.encoder
        self._bell = Bell(asyncio.get_running_loop().call_soon_threadsafe)
        self._news = asyncio.Event()
        self._watch = self._gallery.watch(partial(self._bell.ring, self._news.set))
        self._gallery.look(self._watch, [source])
        self._seen = -1

    def close(self) -> None:
        """Looks no more."""
        self._gallery.leave(self._watch)

    def newer(self) -> Shot | None:
        """A picture that this was not asked for before."""
        shot = self._gallery.newest(self.source)
        if shot is None or shot.mark <= self._seen:
            return None
        self._seen = shot.mark
        return shot

    async def change(self) -> None:
        """Waits for a newer picture, or for the word that something else has changed."""
        await self._news.wait()
        self._news.clear()
        self._gallery.take_news(self._watch)

    async def next(self) -> Shot:
        """Waits for a newer picture."""
        while (shot := self.newer()) is None:
            await self.change()
        return shot

    async def encoded(self, shot: Shot, form: Form) -> Encoded:
        """The picture as a JPEG, or a newer one."""
        made: asyncio.Future[Encoded] = asyncio.get_running_loop().create_future()

        def settle(encoded: Encoded) -> None:
            if not made.done():
                made.set_result(encoded)

        self._encoder.ask(shot, form, lambda encoded: self._bell.ring(partial(settle, encoded)))
        encoded = await made
        self._seen = max(self._seen, encoded.mark)
        return encoded
