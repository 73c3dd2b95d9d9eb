"""A language model in this process: a tiny random one, and SmolLM2 where its packages are installed."""

import json
import shutil

import pytest
import torch
from transformers import AutoTokenizer

from tgq.encoder.tiny import write_tiny_llm
from tgq.encoder.towers import hub
from tgq.errors import ModelError
from tgq.refinement.generators.generator import Chat
from tgq.refinement.generators.local import LocalModel, _loaded
from tgq.refinement.loop import ModelRefiner
from tgq.refinement.refiner import ItemText

SMOL = "smollm2-135m-instruct"
TEMPLATE = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
CHATS = [Chat("be brief", text) for text in ("red shoe", "a blue bag of leather for women and men", "mug", "watch " * 60)]


def written(folder, template=TEMPLATE, **config):
    write_tiny_llm(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"max_position_embeddings": 4096} | config))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return written(tmp_path_factory.mktemp("llm"))


def test_an_answer_does_not_depend_on_the_others_of_its_batch(folder):
    together = LocalModel(str(folder), "cpu", batch=4, answer_tokens=12).answers(CHATS, json=False)
    alone = [LocalModel(str(folder), "cpu", batch=1, answer_tokens=12).answers([chat], json=False)[0] for chat in CHATS]
    assert together == alone and len({reply.text for reply in together}) > 1
    tokenizer = _loaded(str(folder), "cpu", "auto", False)[0].tokenizer
    prompt = tokenizer(TEXT := "system: be brief\nuser: red shoe\nassistant:", add_special_tokens=False)["input_ids"]
    assert len(prompt) < together[0].tokens <= len(prompt) + 12, TEXT


def test_sampling_that_the_folder_asks_for_is_not_done(folder, tmp_path):
    sampling = shutil.copytree(folder, tmp_path / "sampling")
    (sampling / "generation_config.json").write_text(json.dumps({"do_sample": True, "temperature": 5.0, "top_k": 0}))
    greedy = LocalModel(str(folder), "cpu", answer_tokens=12).answers(CHATS, json=False)
    for seed in range(2):
        torch.manual_seed(seed)
        assert LocalModel(str(sampling), "cpu", answer_tokens=12).answers(CHATS, json=False) == greedy


def test_a_prompt_that_the_model_cannot_read_has_no_answer(tmp_path):
    short = written(tmp_path / "short", max_position_embeddings=72)
    replies = LocalModel(str(short), "cpu", answer_tokens=8).answers(CHATS, json=False)
    assert [reply.reason for reply in replies] == [None, None, None, "prompt_too_long"]


def test_a_template_without_a_system_message_gets_its_text_before_the_users(tmp_path):
    strict = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}" + TEMPLATE
    known = LocalModel(str(written(tmp_path / "strict", strict)), "cpu", answer_tokens=8).answers(CHATS[:1], json=False)
    assert known[0].reason is None and known[0].text


def test_no_answer_of_a_random_model_is_used(folder):
    refiner = ModelRefiner(LocalModel(str(folder), "cpu", answer_tokens=8), rounds=2, longest=100)
    results = refiner.refine([ItemText("red shoe", "Acme"), ItemText("blue bag")])
    assert [(r.verdict, r.reason, r.rounds) for r in results] == [("refused", "no_json", 2)] * 2 and all(r.tokens > 100 for r in results)


def test_what_a_model_lacks_is_said_before_it_is_used(folder, tmp_path):
    LocalModel(str(folder)).need()
    bare, unweighted, untold = (shutil.copytree(folder, tmp_path / name) for name in ("bare", "unweighted", "untold"))
    (unweighted / "model.safetensors").unlink()
    for file in (*bare.glob("tokenizer*"), *bare.glob("*.jinja"), *bare.glob("vocab*")):
        file.unlink()
    for file in untold.glob("chat_template*"):
        file.unlink()
    config = json.loads((untold / "tokenizer_config.json").read_text())
    (untold / "tokenizer_config.json").write_text(json.dumps({k: v for k, v in config.items() if k != "chat_template"}))
    for place, said in ((bare, "tokenizer"), (unweighted, "no weights"), (untold, "no chat template"), (tmp_path / "nowhere", "does not exist")):
        with pytest.raises(ModelError, match=said):
            LocalModel(str(place)).need()


def test_the_version_follows_the_files_and_the_length_of_answers(folder, tmp_path):
    other = write_tiny_llm(tmp_path / "other", seed=1)
    versions = {LocalModel(str(place), answer_tokens=n).version for place in (folder, other) for n in (8, 9)}
    assert len(versions) == 4
    assert LocalModel(str(folder), "cpu", batch=2).version == LocalModel(str(shutil.copytree(folder, tmp_path / "copy")), "cuda", batch=9).version


@pytest.mark.skipif(not hub.is_available(SMOL), reason=f"the optional packages of {SMOL} are not installed: make .venv/.llm")
def test_a_real_model_answers_and_its_titles_are_checked():
    refiner = ModelRefiner(LocalModel(SMOL, "cpu", answer_tokens=64), rounds=2, longest=120)
    [result] = refiner.refine([ItemText("BLUE ceramic mug mug 0.3 l FREE SHIPPING", "Acme", "Home > Mugs", {"colour": "blue"})])
    assert result.verdict in ("refined", "kept", "refused") and result.rounds >= 1 and result.tokens > 100
