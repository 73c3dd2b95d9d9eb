"""The shipped profiles on files of the shape that each shop system writes, and a profile that `tgq init` writes."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tgq.catalog.profile import look_at
from tgq.catalog.reading.source import open_source
from tgq.settings.load import load_settings

SHOPIFY = """\ufeffHandle,Title,Body (HTML),Vendor,Product Category,Type,Tags,Option1 Name,Option1 Value,Variant SKU,Image Src,Image Position,Variant Image
lamp,Desk lamp,"<p>one
two</p>",Lumen,Home > Lamps,Lamp,"a, b",Colour,Black,L-1,https://cdn.shopify.com/1.jpg,1,https://cdn.shopify.com/v1.jpg
lamp,,,,,,,,White,L-2,,,
lamp,,,,,,,,,,https://cdn.shopify.com/2.jpg,2,
"""
TSV = "id\ttitle\tbrand\tgoogle_product_category\tproduct_type\timage link\tadditional_image_link\titem_group_id\tcolor\tprice\n" \
      '1\t5" lamp\tLumen\t\tHome > Lamps\t//img.example/1.jpg\thttp://img.example/2.jpg,http://img.example/3.jpg\tg1\tred\t5 EUR\n'  # fmt: skip
XML = """<rss xmlns:g="http://base.google.com/ns/1.0" version="2.0"><channel><title>Shop</title><item><g:id>1</g:id><g:title>5" lamp</g:title>
<g:brand>Lumen</g:brand><g:product_type>Home &gt; Lamps</g:product_type><g:image_link>//img.example/1.jpg</g:image_link>
<g:additional_image_link>http://img.example/2.jpg</g:additional_image_link><g:additional_image_link>http://img.example/3.jpg</g:additional_image_link>
<g:item_group_id>g1</g:item_group_id><g:color>red</g:color></item></channel></rss>"""
WOO = """ID,Type,SKU,Name,Published,Categories,Tags,Images,Parent,Attribute 1 name,Attribute 1 value(s)
10,variable,HOOD,Hoodie,1,"Clothing > Hoodies, Sale",,"https://w.example/a.jpg, https://w.example/b.jpg",,Colour,"Blue, Green"
11,variation,HOOD-B,Hoodie - Blue,1,,,,HOOD,Colour,Blue
12,simple,,Mug,1,Kitchen,,,,,
"""


@pytest.fixture
def rows(spark):
    def rows(profile, path):
        catalog = load_settings(["local", profile], [f"catalog.path={path}"], {}).settings.catalog
        source = open_source(spark, catalog)
        return {r.item_id: r for r in source.frame.collect()}, source.notes

    return rows


def test_shopify(rows, tmp_path):
    (tmp_path / "products_export.csv").write_text(SHOPIFY, encoding="utf-8", newline="")
    found, _ = rows("catalogs/shopify", tmp_path)
    assert set(found) == {"L-1", "L-2", None}
    black, white = found["L-1"], found["L-2"]
    assert (white.title, white.brand, white.category, white.group_id) == ("Desk lamp", "Lumen", "Home > Lamps", "lamp")
    assert (black.image_uri, white.image_uri) == ("https://cdn.shopify.com/v1.jpg",) * 2
    assert (black.attributes, white.attributes) == ({"option_1": "Black", "tags": "a, b"}, {"option_1": "White"})


@pytest.mark.parametrize("name, text", [("feed.txt", TSV), ("feed.tsv", TSV), ("feed.xml", XML)])
def test_google_merchant(rows, tmp_path, name, text):
    (tmp_path / name).write_text(text)
    found, notes = rows("catalogs/google-merchant", tmp_path)
    item = found["1"]
    assert (item.title, item.brand, item.category, item.group_id) == ('5" lamp', "Lumen", "Home > Lamps", "g1")
    assert (item.image_uri, item.additional_images) == ("//img.example/1.jpg", ["http://img.example/2.jpg", "http://img.example/3.jpg"])
    assert item.attributes == {"color": "red"} and not notes


def test_woocommerce(rows, tmp_path):
    (tmp_path / "wc-product-export.csv").write_text(WOO)
    found, _ = rows("catalogs/woocommerce", tmp_path)
    assert {i: (r.category, r.image_uri, r.group_id) for i, r in found.items()} == {
        "HOOD": ("Clothing > Hoodies", "https://w.example/a.jpg", "HOOD"), "HOOD-B": ("Clothing > Hoodies", "https://w.example/a.jpg", "HOOD"),
        "12": ("Kitchen", None, "12"),
    }  # fmt: skip
    assert found["HOOD"].additional_images == ["https://w.example/b.jpg"] and found["HOOD-B"].attributes == {"attribute_1": "Blue"}


def test_huggingface(rows, tmp_path):
    table = pa.table({
        "asin": ["B01", "B02"], "product_title": ["Lamp", "Mug"], "store": ["Lumen", None], "categories": [["Home", "Lamps"], []],
        "image": [{"bytes": b"\xff\xd8", "path": None}, {"bytes": None, "path": "images/2.jpg"}], "details": ['{"Color": "red"}', None],
    })  # fmt: skip
    pq.write_table(table, tmp_path / "train-00000-of-00001.parquet")
    found, _ = rows("catalogs/huggingface", tmp_path)
    assert (found["B01"].title, found["B01"].category, found["B01"].attributes) == ("Lamp", "Home > Lamps", {"Color": "red"})
    assert (bytes(found["B01"].image_bytes), found["B02"].image_uri) == (b"\xff\xd8", "images/2.jpg")


def test_a_written_profile_reads_the_catalog_that_it_was_written_for(rows, spark, tmp_path):
    (tmp_path / "items.csv").write_text("Article-ID;Name;Maker;Colour;Photo\n1;Lamp;Lumen;red;1.jpg\n2;Mug;;blue;\n")
    from tgq.settings.sections import CatalogSettings

    found, text = look_at(spark, CatalogSettings(path=str(tmp_path)))
    assert found.fields == {"item_id": "Article-ID", "title": "Name", "brand": "Maker", "image_uri": "Photo"}
    (tmp_path / "shop.yaml").write_text(text)
    items, notes = rows(str(tmp_path / "shop.yaml"), tmp_path)
    assert (items["1"].brand, items["1"].attributes, items["2"].image_uri) == ("Lumen", {"colour": "red"}, None)
