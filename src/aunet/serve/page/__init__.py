"""The playground: a page that the server sends at `/`, with the scripts and styles that it asks for.

Nothing of it is built, and nothing comes from elsewhere: POLICY lets the page load and ask its own server only.
"""

from dataclasses import dataclass
from importlib import resources

from aunet.report.theme import theme

POLICY = "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
"""The Content-Security-Policy under which the page works."""

MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True)
class PageFile:
    """What is sent for one path."""

    media_type: str
    content: bytes


def files() -> dict[str, PageFile]:
    """Every file by the path at which the page looks for it: `/`, `/page/page.js`, `/page/theme.css`, ..."""
    found = {"/page/theme.css": PageFile(MEDIA_TYPES[".css"], theme().encode())}
    for file in resources.files("aunet.serve.page").iterdir():
        suffix = file.name[file.name.rfind(".") :]
        if suffix in MEDIA_TYPES:
            path = "/" if file.name == "index.html" else f"/page/{file.name}"
            found[path] = PageFile(MEDIA_TYPES[suffix], file.read_bytes())
    return found
