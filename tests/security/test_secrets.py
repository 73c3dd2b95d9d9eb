"""Passwords, tokens and keys in settings and addresses: no command prints them, no error quotes them, no row and no tag keeps them."""

import json

import pytest

from tgq.cli import app as cli
from tgq.errors import ConfigError, SourceError, TgqError, UsageError
from tgq.images.decode import ImageError
from tgq.messages import STARS, masked
from tgq.night.run_log import log_failure, open_run_log
from tgq.run.opening import open_night, with_catalog
from tgq.run.records import error_line, run_step
from tgq.settings.load import is_secret, load_settings, redacted
from tgq.settings.sections import Settings

S = "hunter2S3cr3t"

OPTIONS = {
    "s3-secret-key": "spark.hadoop.fs.s3a.secret.key", "s3-access-key": "spark.hadoop.fs.s3a.access.key", "s3-session-token": "fs.s3a.session.token",
    "azure-account-key": "fs.azure.account.key.shop.blob.core.windows.net", "azure-sas": "fs.azure.sas.fixed.token.shop",
    "gcs-key": "fs.gs.auth.service.account.private.key", "jdbc-password": "javax.jdo.option.ConnectionPassword", "keystore": "spark.ssl.keyPassword",
    "passwd": "db.passwd", "api-key": "vendor.apiKey", "encryption-key": "fs.s3a.encryption.key", "plain-key": "vendor.key",
    "camel-key": "vendor.signingKey", "credentials": "vendor.credentials", "passphrase": "x.passphrase",
}  # fmt: skip


@pytest.mark.parametrize("name", OPTIONS.values(), ids=OPTIONS)
def test_an_option_of_spark_that_names_a_secret(tmp_path, capsys, name):
    profile = tmp_path / "mine.yaml"
    profile.write_text(json.dumps({"spark": {"conf": {name: S, "spark.executor.memory": "4g"}}}))
    shown = redacted(load_settings(["local", profile], (), {}).settings)
    assert shown[f"spark.conf.{name}"] == STARS and shown["spark.conf.spark.executor.memory"] == "4g"
    for argv in (["--conf", str(profile)], ["--set", f"spark.conf={{{name}: {S}}}"]):
        with pytest.raises(SystemExit) as ended:
            cli.main(["config", "show", "--conf", "local", *argv])
        printed = capsys.readouterr()
        assert ended.value.code == 0 and S not in printed.out + printed.err and STARS in printed.out


@pytest.mark.parametrize("name", ["pairs.key_column", "embed.batch_tokens", "queries.columns.query_id", "index.factory", "spark.conf.spark.executor.memory"])
def test_what_is_no_secret_is_shown(name):
    assert not is_secret(name)


ADDRESSES = {
    "password": (f"https://shop:{S}@feeds.example/x", f"https://shop:{STARS}@feeds.example/x"),
    "password-with-at": (f"https://shop:{S}@{S}@feeds.example/x", f"https://shop:{STARS}@feeds.example/x"),
    "password-with-slash": (f"postgresql://shop:{S}/{S}@db/mlflow", f"postgresql://shop:{STARS}@db/mlflow"),
    "password-without-user": (f"redis://:{S}@cache/0", f"redis://:{STARS}@cache/0"),
    "token-as-user": (f"https://{S}@github.com/x", f"https://{STARS}@github.com/x"),
    "signed-url": (f"https://s3.example/1.jpg?X-Amz-Signature={S}&w=3", f"https://s3.example/1.jpg?X-Amz-Signature={STARS}&w=3"),
    "azure-sas": (f"https://x.example/c?sv=2&sig={S}", f"https://x.example/c?sv=2&sig={STARS}"),
    "token-parameter": (f"https://x.example/c?access_token={S}#a", f"https://x.example/c?access_token={STARS}#a"),
    "api-key-parameter": (f"https://x.example/c?apikey={S}", f"https://x.example/c?apikey={STARS}"),
    "jdbc": (f"jdbc:mysql://db/x;user=a;password={S};ssl=1", f"jdbc:mysql://db/x;user=a;password={STARS};ssl=1"),
}  # fmt: skip


@pytest.mark.parametrize(("address", "shown"), ADDRESSES.values(), ids=ADDRESSES)
def test_an_address_with_a_secret(address, shown):
    assert masked(address) == shown == masked(shown)
    assert str(TgqError(f"{address} does not answer", f"correct {address}")) == f"{shown} does not answer: correct {shown}"
    assert ImageError("not_found", f"{address}: HTTP 404").detail == f"{shown}: HTTP 404"
    assert error_line(OSError(f"cannot open {address}")) == f"OSError: cannot open {shown}"
    settings = {"tracking": {"uri": address}, "catalog": {"path": address}, "images": {"allowed_roots": [address, "/photos"]}}
    found = redacted(Settings.model_validate(settings))
    assert found["tracking.uri"] == found["catalog.path"] == shown and found["images.allowed_roots"] == [shown, "/photos"]
    loaded = load_settings(["local"], [f"catalog.path={json.dumps(address)}"], {})
    assert S not in loaded.origin("catalog.path")


@pytest.mark.parametrize(
    "address", ["http://host:8080/a@2x.jpg", "abfss://photos@shop.dfs.core.windows.net/1.jpg", "s3://bucket/a:1@2.jpg", "file:///a:b@c.jpg", "user@example.org"]
)
def test_an_address_without_a_secret_is_shown(address):
    assert masked(address) == address


OVERRIDES = {
    "unknown-key": (f"tracking.password={S}", "tracking.password: unknown key"),
    "unknown-section": (f"secrets.vendor={S}", "secrets: unknown key"),
    "wrong-type": (f"spark.conf.vendor.key={S}", "spark.conf.vendor: Input should be a valid string"),
    "wrong-type-inside": (f"embed.task_items={{password: {S}}}", "embed.task_items: Input should be a valid integer"),
    "broken-yaml": (f"spark.conf.token=[{S}", "its value is not YAML"),
    "broken-reference": (f"spark.conf.token=${{{S}", "its value is not YAML"),
    "address": (f"embed.task_items=https://a:{S}@b/", "embed.task_items: Input should be a valid integer"),
}  # fmt: skip


@pytest.mark.parametrize(("override", "said"), OVERRIDES.values(), ids=OVERRIDES)
def test_a_mistake_in_a_setting_does_not_quote_its_secret(override, said):
    with pytest.raises(ConfigError) as caught:
        load_settings(["local"], [override], {})
    assert said in str(caught.value) and S not in str(caught.value) and S not in repr(caught.value.__cause__) and "\n" not in str(caught.value)


def test_a_mistake_in_the_environment_does_not_quote_its_secret():
    with pytest.raises(ConfigError) as caught:
        load_settings(["local"], (), {"TGQ__TRACKING__PASSWORD": S})
    assert "tracking.password: unknown key (from $TGQ__TRACKING__PASSWORD)" in str(caught.value) and S not in str(caught.value)


@pytest.mark.parametrize("value", ["${" + S, "${nope:" + S + "}"], ids=["open", "unknown-resolver"])
def test_a_broken_reference_in_a_profile_does_not_quote_its_secret(tmp_path, value):
    (tmp_path / "mine.yaml").write_text(json.dumps({"spark": {"conf": {"vendor.token": value}}}))
    with pytest.raises(ConfigError) as caught:
        load_settings(["local", tmp_path / "mine.yaml"], (), {})
    assert S not in str(caught.value) and "vendor.token" in str(caught.value)


def test_a_run_keeps_no_password_of_its_catalog_and_says_so_to_the_next_step():
    detail = json.dumps({"catalog": masked(f"hdfs://shop:{S}@node/catalog")})
    assert S not in detail
    with pytest.raises(UsageError, match="was named with a password, which is not kept: name it again with --catalog"):
        with_catalog(Settings(), detail)
    named = Settings.model_validate({"catalog": {"path": "elsewhere"}})
    assert with_catalog(named, detail) is named
    assert with_catalog(Settings(), json.dumps({"catalog": "/shop"})).catalog.path == "/shop"


def test_rows_and_tags_of_a_run_keep_no_password(spark, empty_tables):
    """The row that begins a run, that of a step that fails, and the run in MLflow."""
    address = f"hdfs://shop:{S}@node/catalog"
    settings = {"warehouse": {"path": str(empty_tables)}, "catalog": {"path": address}, "encoder": {"path": "default"}}
    settings |= {"spark": {"conf": {"fs.s3a.secret.key": S}}, "images": {"allowed_roots": [address]}}
    night = open_night(spark, Settings.model_validate(settings))
    with pytest.raises(OSError):
        run_step(night, "ingest", lambda night: open_nothing(address))
    tracker = open_run_log(night)
    tracker.log_params(redacted(night.settings))
    log_failure(night, tracker, error_line(OSError(f"no route to {address}")))
    rows = night.warehouse.rows("pipeline_runs", {"run_id": night.run_id})
    assert len(rows) == 2 and S not in str(rows) and all(STARS in row["detail"] for row in rows)
    run = tracker.client.get_run(tracker.run)
    assert not tracker.problems and S not in str(run.data) and run.data.params["spark.conf.fs.s3a.secret.key"] == STARS
    assert S.encode() not in b"".join(file.read_bytes() for file in empty_tables.glob("mlflow.db*"))


def open_nothing(address: str):
    raise OSError(f"cannot open {address}\nat java.net.Socket")


def test_the_command_line_prints_no_password(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        cli.main(["nightly", "--catalog", f"shop?password={S}"])
    assert S not in capsys.readouterr().err
    assert S not in str(SourceError(f"the catalog s3://a:{S}@b is empty", f"check s3://a:{S}@b"))
