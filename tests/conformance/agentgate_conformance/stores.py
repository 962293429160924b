"""The contract of a state store, as tests that a store's author runs against it.

Subclass `StoreConformance` in a test file and give it a pytest fixture `store`. Every test uses a tenant of its own, so one store can
serve all of them::

    class TestMyStore(StoreConformance):
        @pytest.fixture
        def store(self):
            store = MyStore(...)
            yield store
            store.close()

An asynchronous store is tested through `Blocking`. What a suite cannot do from outside (kill the server, cut its network) belongs to
the store's own tests: after lost data, burns must return `lineage`, and a history that is behind what a caller remembers `lost`.
"""

from __future__ import annotations

from agentgate_conformance._account_keys import AccountKeys
from agentgate_conformance._book import Blocking
from agentgate_conformance._budgets import Budgets
from agentgate_conformance._calls import Calls
from agentgate_conformance._histories import Histories
from agentgate_conformance._holds import Holds
from agentgate_conformance._kept import Keepings
from agentgate_conformance._limits import Limits
from agentgate_conformance._memories import Memories
from agentgate_conformance._notifications import Notifications
from agentgate_conformance._performances import Performances
from agentgate_conformance._revocations import Revocations
from agentgate_conformance._waiting import WaitingHolds
from agentgate_conformance._withdrawals import Withdrawals

__all__ = ["Blocking", "StoreConformance"]


class StoreConformance(
    Budgets,
    Calls,
    Performances,
    Limits,
    Histories,
    Withdrawals,
    Revocations,
    Holds,
    WaitingHolds,
    Memories,
    Keepings,
    Notifications,
    AccountKeys,
):
    """The suite.

    Attributes:
        racers: how many threads race.
        tokens: how many tokens each of them tries to burn.
    """
