"""The message store, shared by all handlers of an application."""

from .errors import QueueFull, StoreError, Unopenable
from .pages import Page
from .sqlite.files import make_folder
from .sqlite.store import MessageStore

__all__ = ["MessageStore", "Page", "QueueFull", "StoreError", "Unopenable", "make_folder"]
