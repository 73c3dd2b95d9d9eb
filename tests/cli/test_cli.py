"""The command line: a user's mistake gives one line and the right exit code."""

import fcntl
import shutil
from pathlib import Path

import pytest
import torch

from tgq.cli import app as cli
from tgq.demo.catalog import draw_catalog
from tgq.encoder.tiny import write_tiny_encoder
from tgq.errors import GateError
from tgq.query_tower.config import FOLDER, QueryTowerConfig
from tgq.query_tower.tower import QueryTower
from tgq.registry.champion import Promotion, encoder_name, read_history, store_encoder, write_history
from tgq.registry.loading import query_version_of, versions_of
from tgq.retrieval.manifest import Manifest, publish


@pytest.fixture
def run(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

    def run(*argv):
        with pytest.raises(SystemExit) as ended:
            cli.main(list(argv))
        printed = capsys.readouterr()
        return ended.value.code, printed.out, printed.err

    return run


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shop") / "demo"
    draw_catalog(folder, items=12, seed=1, size=64, workers=1)
    return folder


@pytest.mark.parametrize(
    "argv, code, said",
    [
        ("nightly", 2, "no catalog was named: give --catalog FOLDER"),
        ("nightly --catalog nowhere", 1, "the catalog nowhere does not exist"),
        ("nightly --catalog . --set embed.task_itemz=4", 2, "embed.task_itemz"),
        ("nightly --catalog . --set embed.task_items=many", 2, "embed.task_items"),
        ("nightly --catalog . --conf nothing-there", 2, "nothing-there"),
        ("nightly --catalog . --warehouse taken/below", 1, "taken"),
        ("nightly --catalog . --run-id manual__2026-01-01T00:00:00+00:00", 2, "the run id 'manual__2026-01-01T00:00:00+00:00' is not valid"),
        ("nightly --catalog . --set gate.floors.hit_rate@7=0.5", 2, "hit_rate@7"),
        ("nightly --catalog . --set enrich.text.refiner=model", 2, "enrich.text.local.model: null, but enrich.text.refiner is 'model'"),
        ("nightly --catalog . --set enrich.text.endpoint.key_variable=sk-4711", 2, "key_variable: no name of an environment variable"),
        ("nightly --catalog . --set enrich.text.endpoint.private_networks=[here]", 2, "enrich.text.endpoint.private_networks: 'here' is no network"),
        ("train out --catalog . --model visoin=x", 2, "--model visoin=x: no such key"),
        ("train out --catalog . --option lr=fast", 2, "--option lr=fast"),
        ("train out", 2, "no training data was named: give --warehouse FOLDER, or --catalog FOLDER"),
        ("train out --warehouse nowhere", 1, "no tgq tables in"),
        ("calibrate out", 2, "no items to calibrate on were named: give --warehouse FOLDER, or --catalog FOLDER"),
        ("calibrate out --warehouse nowhere", 1, "no tgq tables in"),
        ("train out --catalog . --launcher mpi", 2, "choose torchrun or spark"),
        ("train-attributes out", 2, "no items to train on were named: give --warehouse FOLDER, or --catalog FOLDER"),
        ("train-attributes out --warehouse nowhere", 1, "no tgq tables in"),
        ("train-attributes out --catalog nowhere", 1, "the catalog nowhere does not exist"),
        ("train-attributes out --catalog . --option stepz=1", 2, "--option stepz=1: no such key"),
        ("train-attributes out --catalog . --precision 2", 2, "--precision"),
        ("train-attributes out --catalog . --reinforce-option steps=3", 2, "--reinforce-option is given without --reinforce"),
        ("train-attributes out --catalog . --language-model models/instruct", 2, "--language-model is given without --reinforce"),
        ("train-attributes out --catalog . --reinforce --language-model x --reinforce-option samples=1", 2, "--reinforce-option samples=1"),
        ("index rollback --warehouse nowhere", 1, "there is no warehouse"),
        ("promote candidate --warehouse nowhere", 1, "there is no warehouse"),
        ("promote candidate --warehouse . --set encoder.path=default", 2, "encoder.path is default"),
        ("rollback-model --warehouse nowhere", 1, "there is no warehouse"),
        ("rollback-model --warehouse .", 1, "no encoder was promoted here"),
        ("models --warehouse nowhere", 1, "there is no warehouse"),
        ("demo-catalog taken/below", 1, "taken"),
        ("nightly --catalog . --no-such-option", 2, "--no-such-option"),
        ("frobnicate", 2, "frobnicate"),
        ("validate --suite all-of-it", 2, "choose one of"),
        ("search --text a --item b", 2, "exactly one of --item, --text and --image"),
        ("search --text a --warehouse empty", 1, "empty"),
        ("search --item a --hybrid", 2, "--hybrid compares words, and there is no --text"),
        ("search --text  --warehouse empty".split(" "), 2, "the text of the search is empty"),
        ("export-query-tower out --encoder default", 1, "the encoder default has no query tower: train one with `tgq train-queries`"),
        ("export-query-tower out --encoder default --warehouse w", 2, "--encoder and --warehouse name two encoders"),
        ("export-query-tower out --warehouse nowhere", 1, "there is no warehouse"),
        ("train out --catalog nowhere", 1, "nowhere"),
        ("robustness --nuisance blur", 2, "no nuisance named 'blur': choose from typographic, typographic_own, banner"),
        ("multiply nowhere out --rows 5", 1, "the catalog nowhere does not exist"),
        ("multiply . out", 2, "--rows"),
        ("multiply . out --rows 0", 2, "rows is 0: give 1 or more"),
        ("multiply . out --rows 5 --scenes 2", 2, "scenes is 2: give a share between 0 and 1"),
        ("multiply . out --rows 5 --scene-size 0.5 0.9", 2, "scene_size is 0.5 to 0.9: give two shares"),
        ("multiply . . --rows 5", 2, "is where the catalog . is read from: name another folder"),
        ("multiply . taken --rows 5", 2, "is a file: name a folder"),
        ("multiply . taken/below --rows 5", 1, "Not a directory: check the path"),
        ("robustness --warehouse empty", 1, "nothing is published in empty"),
    ],
)
def test_a_mistake_is_one_line(run, tmp_path, argv, code, said):
    (tmp_path / "taken").write_text("a file where a folder is wanted")
    got, _, text = run(*(argv.split() if isinstance(argv, str) else argv))
    assert got == code and said in text and "Traceback" not in text
    assert len([line for line in text.splitlines() if line.startswith("tgq: ")]) == 1


def test_a_rollback_says_what_it_changes(run, tiny_encoder, tmp_path):
    (tmp_path / "w").mkdir()
    root, names = str(tmp_path / "w"), [versions_of(str(tiny_encoder))[0]]
    for n in range(4):  # the tiny encoder with one query tower after the other, and at last another encoder
        folder = write_tiny_encoder(tmp_path / "last", seed=1) if n == 3 else Path(shutil.copytree(tiny_encoder, tmp_path / f"tower-{n}"))
        if n < 3:
            torch.manual_seed(n)
            QueryTower(QueryTowerConfig(names[0], 16, text="towers/text"), relative_to=folder).save(folder / FOLDER)
        (model, _), queries = versions_of(str(folder)), query_version_of(str(folder)) or ""
        names.append(encoder_name(model, queries))
        files = store_encoder(root, str(folder), names[-1])
        promotion = Promotion(model, f"2026-01-0{n + 1}T00:00:00+00:00", names[-2], False, files, {}, query_version=queries)
        write_history(root, read_history(root).promoted(promotion))

    def said():
        code, text, _ = run("rollback-model", "--warehouse", root, "--set", "tracking.enabled=false")
        assert code == 0
        return text.strip()

    assert said() == f"the champion is now {names[3]}; the next nightly run embeds with it"
    assert said() == f"the champion is now {names[2]}; searches use it as soon as a night has published its item embeddings"
    publish(root, Manifest("g1", "night-1", names[0], "default", "2026-01-05T00:00:00+00:00"))
    assert said() == f"the champion is now {names[1]}; searches use it at once"


def test_without_java_the_first_line_says_so(run, shop, monkeypatch):
    monkeypatch.setenv("JAVA_HOME", "/nowhere")
    code, _, text = run("nightly", "--catalog", str(shop), "--warehouse", "w")
    assert code == 1 and text.startswith("tgq: no Java found") and "openjdk-17" in text


@pytest.mark.parametrize("command", ["nightly", "evaluate"])
def test_a_refused_night_is_a_failure_unless_it_should_not_be(run, shop, monkeypatch, command):
    def refused(*args):
        raise GateError("the quality gate refused this night: hit_rate@10 fell", "the last good generation stays published")

    monkeypatch.setattr("tgq.cli.commands.nightly.run_steps", refused)
    told = [run(command, "--catalog", str(shop), "--warehouse", "w", *options) for options in ((), ("--no-fail",))]
    assert [code for code, _, _ in told] == [3, 0]
    assert all(text.startswith("tgq: the quality gate refused this night: hit_rate@10 fell") for _, _, text in told)


def test_a_warehouse_in_use_names_its_holder(run, shop, tmp_path):
    (tmp_path / "w").mkdir()
    with open(tmp_path / "w" / ".lock", "w") as held:
        held.write('{"pid": 4711, "host": "here", "since": "2026-01-31 02:00:00 UTC"}')
        held.flush()
        fcntl.flock(held, fcntl.LOCK_EX)
        code, _, text = run("nightly", "--catalog", str(shop), "--warehouse", "w")
    assert code == 1 and "process 4711 on here since 2026-01-31" in text


def test_config_show_says_where_each_value_came_from(run, monkeypatch):
    monkeypatch.setenv("TGQ__EMBED__TASK_ITEMS", "77")
    code, text, _ = run("config", "show", "--conf", "local", "--conf", "catalogs/luma", "--set", "evaluate.seed=9")
    lines = {line.split()[1]: line for line in text.splitlines() if line.startswith("│")}
    assert code == 0
    assert "77" in lines["embed.task_items"] and "TGQ__EMBED__TASK_ITEMS" in lines["embed.task_items"]
    assert "--set" in lines["evaluate.seed"] and "luma" in lines["metadata.fields"] and "base.yaml" in lines["catalog.format"]


def test_every_command_has_help(run):
    commands = ("nightly ingest validate enrich embed index neighbors evaluate publish report robustness train train-queries train-attributes promote "
                "rollback-model models search tables export export-query-tower config demo-catalog multiply doctor")
    for command in commands.split():
        code, text, _ = run(command, "--help")
        assert code == 0 and "Usage" in text and len(text.splitlines()) > 6, command
