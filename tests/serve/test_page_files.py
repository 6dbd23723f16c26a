"""The files of the playground: what they refer to, and how they are sent."""

import re
from html.parser import HTMLParser

import httpx

from aunet.serve.page import POLICY, files
from tests.serve.processes import Server


class Elements(HTMLParser):
    """Every element with its attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_the_page_refers_to_its_own_files_only() -> None:
    found = files()
    page = Elements(found["/"].content.decode())
    for tag, attributes in page.found:
        assert "style" not in attributes, tag
        assert not [name for name in attributes if name.startswith("on")], tag
        for name in ("src", "href"):
            if name in attributes:
                assert f"/{attributes[name]}" in {"/docs", *found}
    for path, file in found.items():
        text = file.content.decode().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?:|//[a-z]+\.|@import|url\(|innerHTML|insertAdjacentHTML", text), path
        for name in re.findall(r'from "\./(.+?)"', text):
            assert f"/page/{name}" in found


def test_every_property_that_is_used_is_set() -> None:
    styles = [file.content.decode() for path, file in files().items() if path.endswith(".css")]
    used = {name for style in styles for name in re.findall(r"var\((--[\w-]+)\)", style)}
    assert used - {name for style in styles for name in re.findall(r"(--[\w-]+):", style)} == {"--share"}


def test_the_server_sends_them_under_the_policy(server: Server) -> None:
    for path, file in files().items():
        answer = httpx.get(server.url + path)
        assert (answer.status_code, answer.content) == (200, file.content)
        assert answer.headers["content-type"] == file.media_type
        assert answer.headers["content-security-policy"] == POLICY
