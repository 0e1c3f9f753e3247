"""A client of the API, for the emulator's own tests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import requests
from azure.identity import ClientSecretCredential

if TYPE_CHECKING:
    from dev.emulator_process import Emulator

API_VERSION = "2017-10-31"
SCOPE = "https://cloudpartner.azure.com/.default"


class Client(requests.Session):
    """Speaks to the API with a token that the real azure-identity got."""

    def __init__(self, emulator: Emulator) -> None:
        super().__init__()
        self.trust_env = False
        self.verify = emulator.ca
        self.base = emulator.url
        connection = emulator.connection
        self.credential = ClientSecretCredential(
            connection["extra"]["tenantId"],
            connection["login"],
            connection["password"],
            authority=emulator.url,
            disable_instance_discovery=True,
            connection_verify=emulator.ca,
        )
        self.headers["Authorization"] = f"Bearer {self.credential.get_token(SCOPE).token}"

    def api(self, method: str, path: str, **kwargs: Any) -> requests.Response:
        """Send a request with the api-version, to a path below /api."""
        params = {"api-version": API_VERSION, **kwargs.pop("params", {})}
        return self.request(method, f"{self.base}/api/{path}", params=params, timeout=10, **kwargs)

    def offer(self, method: str, path: str, **kwargs: Any) -> requests.Response:
        """Send a request about an offer of contoso."""
        return self.api(method, f"publishers/contoso/offers/{path}", **kwargs)

    def follow(self, accepted: requests.Response) -> Any:
        """Return the operation to which an answer's Location points, as it came."""
        assert accepted.status_code == 202, accepted.text
        found = self.get(self.base + accepted.headers["Location"], timeout=10)
        assert found.status_code == 200, found.text
        return found.json()
