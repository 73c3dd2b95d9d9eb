"""The documentation's examples run as they stand, on one small published night of a drawn catalog."""

import os
import sys
from pathlib import Path

import pytest

from tests.docs.blocks import TOP, all_blocks, blocks_of
from tests.docs.runner import Runner, simple_commands

SMALL = {  # what the machine and the clock of a test need; no example names these
    "TGQ__SPARK__MASTER": "local[2]", "TGQ__SPARK__DRIVER_MEMORY": "2g", "TGQ__SPARK__SHUFFLE_PARTITIONS": "2", "TGQ__EVALUATE__REPLICATES": "50",
}  # fmt: skip


@pytest.fixture(scope="module")
def runner(request, tmp_path_factory, mlflow_in):
    """A folder with a drawn catalog, the checkout's sql/, and a warehouse with one published night."""
    folder = tmp_path_factory.mktemp("examples")
    (folder / "sql").symlink_to(TOP / "sql")
    mlflow_in(folder / "warehouse")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    runner = Runner(folder, SMALL | {"PATH": path, "PYTHONPATH": str(TOP)})
    request.addfinalizer(runner.close)
    items = 48 if request.config.getoption("markexpr") == "not slow" else 300  # the long examples train, which takes more groups
    runner.run("bash", f"tgq demo-catalog demo --items {items} --seed 3 --size 96 --bad-rows 2")
    runner.run("bash", "tgq nightly --catalog demo --conf local --conf catalogs/demo")
    return runner


@pytest.mark.parametrize("block", [
    pytest.param(block, id=f"{block.page}:{block.line}", marks=[
        *([pytest.mark.slow] if block.slow else []), *([pytest.mark.skip(reason=block.reason)] if block.reason else []),
    ]) for block in all_blocks()
])  # fmt: skip
def test_example(runner, block):
    runner.run(block.language, block.text, block.page)


def test_an_example_that_fails_fails_its_test(runner):
    for language, text, said in (
        ("python", "import tgq\ntgq.open_warehouse('nowhere')", "there is no tgq warehouse in nowhere"),
        ("bash", "tgq search --text shoe --category Nothing", "exit code 2"),
        ("bash", "false | true", "CalledProcessError"),
        ("sql", "SELECT nothing FROM published_items", "exit code 2"),
        ("yaml", "embed: {task_itmes: 3}", "embed.task_itmes"),
    ):
        with pytest.raises(AssertionError, match=said):
            runner.run(language, text)


def test_comments_above_an_example():
    text = (
        "a\n\n<!-- slow -->\n```bash\ntgq doctor\n```\n\n<!-- not run: needs a cluster -->\n```python title='a'\nimport tgq\n```\n\n"
        "```text\na tree\n```\n\n```sql\nSELECT 1\n```\n"
    )
    assert [(b.line, b.language, b.slow, b.reason) for b in blocks_of(text, "page.md")] == [
        (4, "bash", True, None), (9, "python", False, "needs a cluster"), (17, "sql", False, None),
    ]  # fmt: skip
    with pytest.raises(ValueError, match="page.md:2: the comment 'slowly' above an example is not known"):
        blocks_of("<!-- slowly -->\n```bash\ntgq doctor\n```\n", "page.md")


def test_plain_calls_of_tgq_run_in_the_same_process():
    assert simple_commands('tgq search --text "a > b" \\\n  -k 3   # three\n\ntgq doctor\n') == [["search", "--text", "a > b", "-k", "3"], ["doctor"]]
    for text in ("tgq jars | cat", "echo a", 'tgq search --text "$WORDS"', "tgq doctor > doctor.txt", "python -c '\nimport tgq\n'", "tgq doctor; tgq models"):
        assert simple_commands(text) is None
