"""What every implementation of a port must do: pytest classes to inherit from.

Give the class its fixture and pytest runs the suite against your implementation::

    class TestMyStore(RunStoreContract):
        @pytest.fixture
        def stores(self) -> Stores:
            return Stores(MyRunStore(), MyLiveStore())

Each suite ends in races. `rounds` says how many; override that fixture to run more of them.
"""
