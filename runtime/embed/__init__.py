"""Puts a bundle into an app's project, and takes it out again."""

from satchel.runtime.embed.apps import App, find_app
from satchel.runtime.embed.change import Done
from satchel.runtime.embed.embed import Embedded, Way, embed, remove

__all__ = ["App", "Done", "Embedded", "Way", "embed", "find_app", "remove"]
