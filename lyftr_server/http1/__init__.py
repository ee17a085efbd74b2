"""HTTP/1.1 for a Tornado application over llhttp (httptools): framing, limits, timeouts, drain.

Tornado's own parser is Python and takes 100 of the 165 us of a bare request; llhttp (Node's, and
uvicorn's) takes 5. The application sees what Tornado's HTTPServer would give it: an
HTTPServerRequest, and an HTTPConnection to answer on (RFC 9110, 9112).
"""

from .server import Application, Limits, Server

__all__ = ["Application", "Limits", "Server"]
