"""The pages and the API of the leaderboard: FastAPI, templates, two short scripts. Invariant: everything that can be read can
be read without JavaScript, and nothing is fetched from elsewhere. Begin with `app` (a server) or `site` (a folder of files).
"""

from typing import TYPE_CHECKING

from cotbench.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from cotbench.leaderboard.web.app import create_app, server_of
    from cotbench.leaderboard.web.settings import Settings
    from cotbench.leaderboard.web.site import write_site

_HOMES = {
    "Settings": "settings",
    "create_app": "app",
    "server_of": "app",
    "write_site": "site",
}

__all__ = [
    "Settings",
    "create_app",
    "server_of",
    "write_site",
]

__getattr__, __dir__ = lazy_exports(__name__, _HOMES)
