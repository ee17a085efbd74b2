"""Receive signed WhatsApp-like messages over HTTP, store each one once, and give them back."""

__version__ = "0.2.0"
