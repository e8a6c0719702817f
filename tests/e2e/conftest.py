"""The shop the end-to-end tests go shopping in."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

import aiohttp
import pytest

from tests.support.builders import new_id
from tests.support.shop_process import Shop, Shopper


class NewShopper(Protocol):
    """Makes users nobody has seen before."""

    def __call__(self, gateway: int = 0) -> AbstractAsyncContextManager[Shopper]: ...


@pytest.fixture
def new_shopper(shop: Shop) -> NewShopper:
    """Make users nobody has seen before, each at one of the gateways."""
    gateways = shop.gateways()

    @asynccontextmanager
    async def make(gateway: int = 0) -> AsyncIterator[Shopper]:
        async with aiohttp.ClientSession() as session:
            yield Shopper(session, gateways[gateway], f"user-{new_id()}")

    return make
