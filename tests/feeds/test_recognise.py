"""Columns of feeds that nobody described, by name and by cells."""

import yaml

from tgq.feeds.recognise import profile_text, recognise


def test_usual_names_are_found_however_they_are_written():
    found = recognise(("Product ID", "productName", " Brand", "g:google_product_category", "image link", "Color", "price"), [])
    assert found.fields == {
        "item_id": "Product ID", "title": "productName", "brand": " Brand", "category": "g:google_product_category", "image_uri": "image link",
    }  # fmt: skip
    assert found.attributes == {"color": "Color"} and found.others == ("price",) and found.shop is None
    assert found.doubts == ("no column was recognised for group_id",)


def test_an_id_by_its_cells_and_doubts_about_one():
    rows = [{"ref": f"x{n}", "title": "t"} for n in range(5)]
    found = recognise(("title", "ref"), rows)
    assert found.fields["item_id"] == "ref" and "its 5 sampled cells differ" in found.doubts[0]
    assert "no column looks like an id" in recognise(("title",), rows).doubts[0]
    twice = recognise(("sku", "title"), [{"sku": "a"}, {"sku": "a"}, {"sku": None}])
    assert any("1 of 3 sampled rows have no sku" in d for d in twice.doubts) and any("1 of 3 sampled rows stands twice" in d for d in twice.doubts)


def test_exports_of_shops_are_known():
    assert recognise(("Handle", "Title", "Vendor", "Variant SKU", "Image Src"), []).shop == "shopify"
    assert recognise(("id", "title", "image_link", "availability"), []).shop == "google-merchant"
    assert recognise(("ID", "SKU", "Name", "Categories", "Images", "Parent"), []).shop == "woocommerce"


def test_the_profile_is_valid_yaml_whatever_the_columns_are_called():
    found = recognise(("yes", "Brand: the maker", "sku", "title # 1", "Größe"), [])
    text = profile_text(found, "/data/my shop")
    mapping = yaml.safe_load(text)["catalog"]["columns"]
    assert mapping["item_id"] == "sku" and mapping["brand"] is None and "# not used:" in text and "# not recognised" in text
