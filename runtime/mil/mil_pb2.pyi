# Messages are typed as Any: see mil.proto for their fields.
from typing import Any

def __getattr__(name: str) -> Any: ...
