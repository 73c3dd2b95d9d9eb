"""HTML and script in every text field of the report: the page has the elements and attributes of a harmless one, and asks for nothing."""

import importlib.util
import os
import re
from collections import Counter
from html.parser import HTMLParser

import pytest

from tests.report.test_page import HOSTILE, full

PAYLOADS = {
    "script": "<script>document.title='owned'</script>", "script-in-capitals": "<SCRIPT SRC=//127.0.0.1:9/x.js></SCRIPT>", "hostile": HOSTILE,
    "image-with-handler": "<img src=x onerror=document.title='owned'>", "svg-with-handler": "<svg onload=document.title='owned'>",
    "end-of-title": "</title><script>document.title='owned'</script>", "end-of-style": "</style><script>document.title='owned'</script>",
    "end-of-svg": "</text></svg><script>document.title='owned'</script>", "end-of-attribute": "\" onmouseover=\"document.title='owned'\" x=\"",
    "end-of-quoted-attribute": "' onfocus='document.title=1' autofocus='", "end-of-tag": "\"><iframe srcdoc=\"<script>1</script>\"></iframe>",
    "comment": "<!--", "end-of-comment": "--><script>1</script>", "cdata": "<![CDATA[<script>1</script>]]>",
    "processing-instruction": "<?xml-stylesheet href='//x'?>",
    "entities": "&lt;script&gt;1&lt;/script&gt;&#60;script&#62;", "template": "{{ 7 * 7 }}{% for x in ().__class__.__base__.__subclasses__() %}{% endfor %}",
    "script-address": "javascript:document.title='owned'", "data-address": "data:text/html,<script>1</script>", "base": "<base href='http://127.0.0.1:9/'>",
    "refresh": "<meta http-equiv=refresh content='0;url=http://127.0.0.1:9/'>", "style-sheet": "<link rel=stylesheet href=http://127.0.0.1:9/x.css>",
    "style": "<style>@import 'http://127.0.0.1:9/x.css'; * { background: url(http://127.0.0.1:9/x) }</style>",
    "form": "<form action=http://127.0.0.1:9/><button>x",
    "object": "<object data=http://127.0.0.1:9/x></object><embed src=//127.0.0.1:9/x>", "zero-byte": "<scr\0ipt>1</scr\0ipt>",
    "utf-7": "+ADw-script+AD4-1+ADw-/script+AD4-",
    "half-a-character": "\ufffd<script>", "fullwidth": "\uff1cscript\uff1e1\uff1c/script\uff1e", "newline-in-tag": "<img\nsrc=x\nonerror\n=\n1>",
    "override": "\u202e<script>\u2066",
    "foreign": "<math><mtext></mtext><script>1</script></math>", "template-element": "<template><script>1</script></template>",
    "unclosed": "<a href=\"http://127.0.0.1:9/",
}  # fmt: skip
LOADING = {"src", "href", "data", "action", "formaction", "srcset", "poster", "background", "ping", "xlink:href", "srcdoc", "style"}


class Skeleton(HTMLParser):
    """The elements of a page in their order, with the names of their attributes, and all values that load something."""

    def __init__(self, html: str):
        super().__init__()
        self.elements: list[tuple[str, tuple[str, ...]]] = []
        self.loads: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, tuple(sorted(name for name, _ in attrs))))
        self.loads += [value for name, value in attrs if name in LOADING]

    def handle_comment(self, data):
        raise AssertionError(f"a comment: {data[:80]}")

    def unknown_decl(self, data):
        raise AssertionError(f"a declaration: {data[:80]}")

    def handle_pi(self, data):
        raise AssertionError(f"an instruction: {data[:80]}")


HARMLESS = Skeleton(full("a shoe"))


@pytest.mark.parametrize("payload", PAYLOADS.values(), ids=PAYLOADS)
def test_a_payload_in_every_field_adds_no_element_and_no_attribute(payload):
    """`full` puts the text into every field: ids, titles, captions, categories, slices, reasons, notes, errors, steps, facts, settings."""
    page = Skeleton(full(payload))
    assert page.elements == HARMLESS.elements
    assert page.loads and all(value.startswith("data:image/jpeg;base64,") for value in page.loads)


@pytest.mark.parametrize("payload", PAYLOADS.values(), ids=PAYLOADS)
def test_a_second_parser_sees_the_same(payload):
    """Parsers differ in how they mend broken pages. lxml's is libxml2's."""
    html = pytest.importorskip("lxml.html", reason="lxml is not installed")

    def elements(page: str) -> Counter:
        return Counter((e.tag, tuple(sorted(e.attrib))) for e in html.document_fromstring(page).iter() if isinstance(e.tag, str))

    page = full(payload)
    assert elements(page) == elements(full("a shoe"))
    for element in html.document_fromstring(page).iter():
        assert isinstance(element.tag, str) and element.tag not in ("script", "iframe", "object", "embed", "form", "base", "link", "a"), element.tag
        for name, value in element.attrib.items():
            assert not name.startswith("on") and not (name in LOADING and not value.startswith("data:image/jpeg;base64,")), (name, value[:80])


def test_the_policy_of_the_page_forbids_scripts_and_requests():
    page = full(HOSTILE)
    [policy] = re.findall(r'<meta http-equiv="Content-Security-Policy" content="([^"]+)">', page)
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules == {
        "default-src": "'none'", "img-src": "data:", "style-src": "'unsafe-inline'", "base-uri": "'none'", "form-action": "'none'",
    }  # fmt: skip
    # a policy holds for what stands behind it
    assert page.index("Content-Security-Policy") < min(page.index(mark) for mark in ("<title>", "<style>", "<body>"))
    styles = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    assert len(styles) == 1 and not re.search(r"@import|url\(|expression\(|<", styles[0])


def test_settings_with_secrets_are_masked_on_the_page():
    from tgq.night.report_figures import changed_settings
    from tgq.settings.sections import Settings

    secret = "hunter2S3cr3t"
    settings = Settings.model_validate({"spark": {"conf": {"fs.s3a.secret.key": secret}}, "tracking": {"uri": f"http://a:{secret}@mlflow/"}})
    shown = changed_settings(settings)
    assert len(shown) == 2 and secret not in str(shown) and secret not in full("a shoe", settings=shown)


HAS_BROWSER = importlib.util.find_spec("playwright") is not None


@pytest.fixture
def browser_page():
    """A page of Chromium: that of playwright, or the executable that TGQ_CHROMIUM names."""
    from playwright.sync_api import Error, sync_playwright

    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=os.environ.get("TGQ_CHROMIUM"))
        except Error as error:
            pytest.skip(f"Chromium does not start: {str(error).splitlines()[0]}")
        yield browser.new_page()
        browser.close()


@pytest.mark.skipif(not HAS_BROWSER, reason="needs Chromium: pip install playwright && playwright install chromium")
def test_in_chromium_nothing_runs_and_no_request_leaves(tmp_path, browser_page, attacker):
    """All payloads, one after the other, opened as a person would open the report: from a file."""
    page, requests, messages = browser_page, [], []
    page.on("request", lambda request: requests.append(request.url))
    page.on("dialog", lambda dialog: (messages.append(dialog.message), dialog.dismiss()))
    for name, payload in PAYLOADS.items():
        file = tmp_path / f"{name}.html"
        file.write_text(full(payload.replace("127.0.0.1:9", f"127.0.0.1:{attacker.port}")), encoding="utf-8")
        page.goto(file.as_uri())
        for figure in page.query_selector_all("figure")[:3]:
            figure.hover()
        page.wait_for_timeout(20)
        assert page.title() != "owned" and page.evaluate("document.scripts.length") == 0, name
    assert not messages and attacker.connections == 0
    assert {url for url in requests if not url.startswith("data:image/jpeg;")} == {(tmp_path / f"{name}.html").as_uri() for name in PAYLOADS}


@pytest.mark.skipif(not HAS_BROWSER, reason="needs Chromium: pip install playwright && playwright install chromium")
def test_in_chromium_the_policy_alone_would_hold(tmp_path, browser_page, attacker):
    """The same page with a script and an image put in by hand: what the test above looks for is what Chromium would show, if it were not refused."""
    for policy in (True, False):
        evil = f"<script>document.title='owned'</script><img src=http://127.0.0.1:{attacker.port}/x onerror=\"document.title='owned'\"></main>"
        page = full("a shoe").replace("</main>", evil)
        (tmp_path / "evil.html").write_text(page if policy else re.sub(r"<meta http-equiv=.*?>", "", page), encoding="utf-8")
        browser_page.goto((tmp_path / "evil.html").as_uri())
        browser_page.wait_for_timeout(100)
        assert (browser_page.title() == "owned", attacker.connections > 0) == (not policy, not policy)
