"""HTTP/1.1 for a Tornado application over llhttp (httptools): framing, limits, timeouts, drain.

Tornado's own parser is Python and takes 100 of the 165 us of a bare request; llhttp (Node's, and
uvicorn's) takes 5. The application sees a whole Request, as Tornado's handlers know it, and
answers on its Exchange (RFC 9110, 9112).
"""

from .common import Load, Service
from .exchange import ClientGone, Exchange
from .limits import ClientLimits
from .server import Server
from .upload import Request, Upload

__all__ = [
    "ClientGone",
    "ClientLimits",
    "Exchange",
    "Load",
    "Request",
    "Server",
    "Service",
    "Upload",
]
