"""Whether a server can be reached at all, found out in seconds and before anything waits for it."""

import http.client
import ssl
import threading
import urllib.error
import urllib.request

PROBE_SECONDS = 3.0
"""How long the server may take to give any answer."""


def reachable(address: str, seconds: float = PROBE_SECONDS) -> bool:
    """Whether anything answers at an address; any answer counts, also a refusal or a wrong certificate.

    It goes the way that the environment's proxies say, as W&B's own client does, and never takes longer
    than ``seconds``: looking up a name without a network may otherwise hang for a minute.

    Args:
        address: ``http://`` or ``https://`` address of the server.
        seconds: how long to wait.
    """
    answered = threading.Event()

    def ask() -> None:
        try:
            request = urllib.request.Request(address, method="HEAD")
            with urllib.request.urlopen(request, timeout=seconds):
                answered.set()
        except urllib.error.HTTPError as error:
            error.close()
            answered.set()
        except urllib.error.URLError as error:
            if isinstance(error.reason, ssl.SSLError):
                answered.set()
        except http.client.HTTPException:
            answered.set()
        except OSError:
            pass

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(seconds)
    return answered.is_set()
