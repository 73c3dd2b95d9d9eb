"""The page escapes all texts, loads nothing from outside, and renders with little or much data."""

import re
from datetime import datetime, timedelta, timezone
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tgq.report.charts import counts_bar, histogram, intervals, trend
from tgq.report.data import Card, Crops, Figure, Histogram, Night, Quarantined, Report, Search, SliceRow, Step, Strip, StripGroup
from tgq.report.page import duration, headline_metrics, metric_label, picture_uri, render

WHEN = datetime(2026, 1, 31, 2, tzinfo=timezone.utc)
HOSTILE = "<script>alert('x')</script>\"><img src=x onerror=alert(1)>"
VOID = {"meta", "img", "br", "i"}


def figure(value):
    return Figure(value, max(0.0, value - 0.02), min(1.0, value + 0.02), 300)


def full(text="a shoe", **more):
    systems = {s: {f"hit_rate@{k}": figure(v + k / 500) for k in (1, 5, 10, 100)} | {"mrr": figure(v), "ndcg@10": figure(v), "map": figure(v)}
               for s, v in (("encoder", 0.6), ("frozen_concat", 0.4), ("frozen_image", 0.5), ("frozen_text", 0.1))}  # fmt: skip
    picture = picture_uri(Image.new("RGB", (300, 200), "teal"), 64)
    card = Card(text, text, text, picture, 0.87, "hit")
    values = dict(
        run_id=text, started=WHEN, status="published", reasons=[text], notes=[text], systems=systems,
        catalog_change=dict(against=text, published=1200, vanished=300, changed=9, rows=100, quarantined=5, last_rows=80, last_quarantined=1,
                            vanished_share=0.25, changed_share=0.01, quarantined_share=0.05, last_quarantined_share=0.0125, refused=False,
                            accepted=[text]),
        rows={"in": 100, "embedded": 60, "unchanged": 35, "quarantined": 5, "inactive": 2},
        steps=[Step(text, "done", 12.3, 100, 60, 35, 5, 2), Step("embed", "done", 60.0)], items_per_s=12.5, wait_share=0.1, coverage=0.99,
        differences={"frozen_image": Figure(0.1, 0.05, 0.15)},
        trend=[Night(text, WHEN + timedelta(days=d), d % 3 != 1, {"hit_rate@10": figure(0.5 + d / 100), "mrr": figure(0.4)}) for d in range(5)],
        search=Search(
            {s: {m: figure(0.3) for m in ("ndcg@10", "judged_ndcg@10", "recall@10", "mrr", "map", "hit_rate@1")} for s in ("encoder", "frozen_text", "bm25")},
            differences={"bm25": {"ndcg@10": Figure(0.1, 0.05, 0.15)}, "frozen_text": {"mrr": Figure(-0.1)}},
            slices={text: [SliceRow(text, 50, {"encoder": figure(0.5), "bm25": figure(0.4)})]}, strips=[StripGroup(text, text, [Strip(card, [card])])],
        ),
        crops=Crops(text, 3, {text: 2}, [(card, Card(text))]), slices={c: [SliceRow(text, 50, {s: figure(0.5) for s in systems})] for c in ("category", text)},
        histograms=[Histogram(text, text, -1, 1, [1, 5, 3])], shards=[dict(category=text, shard=0, n_items=9, factory=text, recall=None)],
        strips=[StripGroup(text, text, [Strip(card, [card, Card(text)], 1, 2)])], quarantine_counts=[("ingest", text, 5)],
        quarantined=[Quarantined(card, text, text, text)], versions=[(text, 1, None)], facts=[(text, text)], settings=[(text, text, text)],
    )  # fmt: skip
    return render(Report(**values | more))


class Page(HTMLParser):
    """Parses the page and checks that every tag is closed."""

    def __init__(self, html):
        super().__init__()
        self.open, self.tags, self.links = [], set(), []
        self.feed(html)
        assert self.open == [], f"not closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        assert not any(name.startswith("on") for name, _ in attrs), attrs
        self.links += [v for n, v in attrs if n in ("src", "href", "action", "data")]
        if tag not in VOID - {"i"}:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, tag


def test_a_full_page_is_well_formed_and_loads_nothing_from_outside():
    html = full()
    page = Page(html)
    assert page.links and all(link.startswith("data:image/jpeg;base64,") for link in page.links)
    assert "default-src 'none'" in html and "url(" not in html and "@import" not in html
    assert not re.search(r"https?://", html)


def test_the_page_says_how_the_catalog_changed():
    html = full()
    assert "Changes to the catalog: accepted" in html and "300 of its 1,200 items vanished (25.0&nbsp;%)" in html and "1.2&nbsp;% then" in html
    assert "Changes to the catalog" not in full(catalog_change=None)


def test_hostile_text_is_escaped_everywhere():
    html = full(HOSTILE)
    page = Page(html)
    assert not page.tags & {"script", "iframe", "object", "link"}
    assert HOSTILE not in html and html.count("&lt;script&gt;") >= 20


@settings(max_examples=30, deadline=None)
@given(st.text(max_size=40))
def test_any_text_leaves_the_page_well_formed(text):
    Page(full(text, systems={}, status="refused"))


def test_a_run_that_failed_in_its_first_step_has_a_page():
    html = render(Report("run-1", WHEN, "failed", reasons=["ingest: no table"], steps=[Step("ingest", "failed", 0.4)]))
    Page(html)
    assert "This run failed" in html and "ingest: no table" in html and "Retrieval" not in html


def test_the_best_system_of_a_metric_is_marked_and_the_gain_is_the_paired_one():
    html = full()
    row = re.search(r"<tr><td>H@10</td>.*?</tr>", html, re.DOTALL)[0]
    assert re.findall(r'<td class="(\w*)">(\d+\.\d)', row) == [("best", "62.0"), ("", "42.0"), ("", "52.0"), ("", "12.0")]
    assert "+10.0 <small>points</small></b><span>over frozen image" in html


def test_the_parts_of_the_counts_bar_add_up_to_its_width():
    svg = counts_bar([("embedded", 9990), ("unchanged", 0), ("quarantined", 10)])
    widths = [float(w) for w in re.findall(r'width="([\d.]+)" height="22"', svg)]
    assert len(widths) == 2 and sum(widths) == pytest.approx(1040 - 4, abs=0.2) and min(widths) > 1.5


def test_a_figure_without_interval_or_spread_is_drawn():
    flat = {"hit_rate@10": Figure(0.5)}
    assert "whisker" not in intervals(["hit_rate@10"], {"encoder": flat}, metric_label)
    assert "nan" not in trend([Night("r", WHEN, True, flat)], ["hit_rate@10"], metric_label)
    assert "nan" not in histogram(Histogram("t", "", 0, 1, [0]))


def test_labels():
    assert [metric_label(m) for m in ("hit_rate@10", "mrr", "ann_recall@10", "other_thing")] == ["H@10", "MRR", "ANN recall@10", "other thing"]
    assert [duration(s) for s in (3.21, 125, 7260)] == ["3.2 s", "2 min 05 s", "2 h 01 min"]
    report = Report("r", WHEN, "published", systems={"encoder": {m: Figure(1) for m in ("map", "hit_rate@100", "mrr", "hit_rate@5", "coverage")}})
    assert headline_metrics(report) == ["hit_rate@5", "hit_rate@100", "mrr", "map"]
