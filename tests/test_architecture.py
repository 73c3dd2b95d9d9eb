"""Import directions between folders, and the commands and options that jobs and the DAG use."""

import ast
import subprocess
import sys
from pathlib import Path

import typer

from tgq.cli.app import app

ROOT = Path(__file__).parents[1]
DAG = ROOT / "airflow_dags" / "tgq_nightly.py"


def test_imports_point_down_only():
    """The contracts of .importlinter."""
    lint = [str(Path(sys.executable).parent / "lint-imports"), "--no-logo", "--no-cache"]
    run = subprocess.run(lint, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


def test_jobs_are_thin():
    """A job calls the command line and holds no logic."""
    for job in (ROOT / "jobs").glob("*.py"):
        imported = [node.module for node in ast.walk(ast.parse(job.read_text())) if isinstance(node, ast.ImportFrom)]
        assert imported == ["tgq.cli.app"], job
        assert command_of(job.stem) in typer.main.get_command(app).commands, job


def test_the_dag_uses_existing_jobs_and_options():
    """Every job that the DAG submits exists, and its command knows every option that it is given."""
    tree = ast.parse(DAG.read_text())
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "step"]
    common = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "step")
    shared = options(common)
    named = {node.targets[0].id: options(node.value) for node in tree.body if isinstance(node, ast.Assign)}  # options that several steps have
    assert len(calls) == 11 and {"--run-id", "--warehouse", "--conf", "--catalog"} <= shared
    for call in calls:
        job = call.args[1].value
        command = typer.main.get_command(app).commands[command_of(job)]
        known = {name for parameter in command.params for name in parameter.opts}
        starred = {name for n in ast.walk(call) if isinstance(n, ast.Starred) and n.value.id in named for name in named[n.value.id]}
        assert shared | options(call) | starred <= known, job


def options(node: ast.AST) -> set[str]:
    texts = {n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
    return {text for text in texts if text.startswith("--")}


def command_of(job: str) -> str:
    """The command that jobs/<job>.py calls: the first word of `main([word, ...])`."""
    tree = ast.parse((ROOT / "jobs" / f"{job}.py").read_text())
    call = next(n for n in ast.walk(tree) if isinstance(n, ast.Call) and getattr(n.func, "id", "") == "main")
    return call.args[0].elts[0].value
