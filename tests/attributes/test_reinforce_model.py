"""A language model learns by trl to give the answers that retrieval rewards, and what is written is what a night reads."""

import json
import math
import re

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file
from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

from tests.refinement.test_local import TEMPLATE, written
from tgq.attributes import supervise_model as module
from tgq.attributes.reinforce_model import INVALID, ModelReinforceConfig, Task, need_model, reinforce_model
from tgq.attributes.source import REQUEST, SYSTEM, Asked, ModelSource, chat_about
from tgq.attributes.supervise_model import Lesson
from tgq.attributes.vocabulary import Vocabulary
from tgq.errors import ConfigError, ModelError, SourceError, UsageError
from tgq.refinement.generators.local import LocalModel
from tgq.refinement.generators.reader import TextReader
from tgq.refinement.refiner import ItemText
from tgq.settings.load import dataclass_of

VOCABULARY = Vocabulary({"colour": ("Red", "Navy Blue")}, {"": ("colour",)})
ASKED = [Asked(ItemText(f"shoe {n}", "Acme"), ("colour",)) for n in range(12)]
SIDES = np.arange(8), np.arange(8, 12)
RED, BLUE, NONE = '{"colour": "Red"}', '{"colour": "Navy Blue"}', '{"colour": null}'


class Blue:
    """Rewards items that are called navy blue."""

    def recall(self, queries, attributes):
        return np.array([float(own.get("colour") == "Navy Blue") for own, _ in zip(attributes, queries, strict=True)])


def test_an_answer_is_rewarded_by_its_values_that_pass_the_checks_and_no_json_is_invalid():
    task = Task(ASKED, VOCABULARY, Blue())
    texts = [BLUE, '{"colour": "navy  BLUE"}', RED, NONE, "{}", '{"colour": "Zorlon 9"}', "blue", "", BLUE[:-1], "[1]"]
    rewards, valid = task.rewarded([0] * len(texts), texts)
    assert rewards.tolist() == [1, 1, 0, 0, 0, 0] + [INVALID] * 4 and valid.tolist() == [True] * 6 + [False] * 4
    assert task.said(0, '{"colour": "red", "size": "9"}') == {"colour": "Red"} and task.said(0, NONE) == {} and task.said(0, "red") is None


def speaking(folder):
    """A random model whose tokens include whole answers, so that each has a chance. Its last layer is enlarged, because the adapter cannot change it."""
    written(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([RED, BLUE, NONE, *sorted(set(re.findall("[a-z]+", (SYSTEM + REQUEST).lower())))])  # its words too, so that prompts are short
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    model = Qwen3ForCausalLM(Qwen3Config(vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
                                         num_key_value_heads=2, head_dim=8, max_position_embeddings=4096, eos_token_id=tokenizer.eos_token_id))  # fmt: skip
    with torch.no_grad():
        model.lm_head.weight *= 8
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return speaking(tmp_path_factory.mktemp("llm"))


def probability(folder, answer):
    """Of an answer of one token, mean over the held-out items."""
    reader, model = LocalModel(str(folder), "cpu").load()
    tokenizer = reader.tokenizer
    found = []
    for row in SIDES[1]:
        prompt = tokenizer.apply_chat_template(reader.messages(chat_about(ASKED[row], VOCABULARY)), add_generation_prompt=True, return_tensors="pt")
        with torch.no_grad():
            found.append(float(model(prompt["input_ids"]).logits[0, -1].softmax(0)[tokenizer.convert_tokens_to_ids(answer)]))
    return float(np.mean(found))


def local_of(folder, tokens=1):
    return LocalModel(str(folder), "cpu", batch=4, answer_tokens=tokens)


@pytest.fixture(scope="module")
def reinforced(folder, tmp_path_factory):
    """What was found, the folder that it was written to, and the files of the model before and after."""
    pytest.importorskip("trl", reason="trl is not installed: pip install 'tgq[reinforce]'")
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    options = ModelReinforceConfig(steps=8, items=4, samples=8, epochs=2, every=4, lr=3e-2, kl=0.001)
    out, logged, offline = tmp_path_factory.mktemp("reinforced") / "model", [], constants.HF_HUB_OFFLINE
    found = reinforce_model(local_of(folder), ASKED, VOCABULARY, Blue(), *SIDES, options, logged.append)
    found.save(out)
    assert tuple(logged) == found.curve and constants.HF_HUB_OFFLINE == offline
    assert before == {file.name: file.read_bytes() for file in folder.iterdir()}, "the model's own folder stays as it is"
    return found, out


def test_what_is_rewarded_becomes_likelier(folder, reinforced):
    found, out = reinforced
    first, last = found.curve[0], found.curve[-1]
    assert [point.step for point in found.curve] == [0, 4, 8] and math.isnan(first.reward)
    assert probability(folder, BLUE) < 0.1 and first.held_out_recall == 0 and first.held_out_invalid == 1 == first.held_out_tokens
    assert probability(out, BLUE) > 0.3 and max(point.held_out_recall for point in found.curve) == 1
    assert last.reward > found.curve[1].reward + 0.2 and last.invalid < found.curve[1].invalid and last.divergence > 0
    assert found.step == next(point.step for point in found.curve if point.held_out_recall == 1), "the first one of the best"


def test_the_written_model_is_what_a_night_asks(reinforced):
    found, out = reinforced
    assert {file.suffix for file in out.iterdir()} <= {".json", ".safetensors", ".jinja", ".txt"} and (out / "model.safetensors").is_file()
    assert not (out / "adapter_config.json").exists() and not json.loads((out / "generation_config.json").read_text()).get("do_sample")
    local = local_of(out)
    local.need()
    rows = ModelSource(local, VOCABULARY).answers(ASKED)
    best = next(point for point in found.curve if point.step == found.step)
    for side, recall, length in ((SIDES[0], best.train_recall, best.train_length), (SIDES[1], best.held_out_recall, best.held_out_length)):
        said = [{a.key: a.value for a in rows[row] if a.verdict == "said"} for row in side]
        assert Blue().recall(side, said).mean() == recall and np.mean([len(own) for own in said]) == length


def test_where_nothing_is_better_the_model_stays(folder, tmp_path):
    pytest.importorskip("trl", reason="trl is not installed: pip install 'tgq[reinforce]'")

    class Flat:
        def recall(self, queries, attributes):
            return np.full(len(queries), 0.5)

    long = [*ASKED[:9], Asked(ItemText("shoe " * 5000), ("colour",)), Asked(ItemText(""), ("colour",), False), Asked(ItemText("shoe"), ())]
    found = reinforce_model(local_of(folder), long, VOCABULARY, Flat(), *SIDES, ModelReinforceConfig(steps=3, items=9, every=1, lr=0.1))
    found.save(tmp_path)
    before, after = (load_file(place / "model.safetensors") for place in (folder, tmp_path))
    assert found.step == 0 and all(torch.equal(before[name], after[name]) for name in before)
    assert found.curve[-1].divergence > 0, "it moved, for answers that are no JSON cost"


def test_a_warm_up_teaches_what_the_shop_states_and_the_reinforcement_begins_there(folder, tmp_path):
    pytest.importorskip("trl", reason="trl is not installed: pip install 'tgq[reinforce]'")
    unasked = [Lesson(Asked(ItemText(""), ("colour",), False), {"colour": "Red"}), Lesson(Asked(ItemText("shoe"), ()), {"colour": "Red"})]
    lessons, losses = [Lesson(ASKED[row], {"colour": "Navy Blue"}) for row in SIDES[0]] + unasked, []
    options = ModelReinforceConfig(steps=1, items=4, samples=2, every=1, lr=1e-6, warm_up=30, warm_up_lr=1e-2)
    local = local_of(folder, tokens=2)
    found = reinforce_model(local, ASKED, VOCABULARY, Blue(), *SIDES, options, lessons=lessons, log_warm_up=lambda *step: losses.append(step))
    found.save(tmp_path)
    before, start, last = found.curve
    assert [point.step for point in found.curve] == [-30, 0, 1] and [step for step, _ in losses] == list(range(1, 31))
    assert before.held_out_invalid == 1 and start.held_out_invalid == 0 and (before.held_out_recall, start.held_out_recall) == (0, 1)
    assert losses[-1][1] < losses[0][1] / 2 and start.held_out_tokens == 2, "the answer and the end token"
    assert last.divergence < 1e-3, "of the supervised model, not of the one before the warm-up"
    assert found.step == 0 and probability(tmp_path, BLUE) > 0.5 > probability(folder, BLUE)
    with pytest.raises(SourceError, match="no item that states attributes can be learned from in the warm-up"):
        reinforce_model(local, ASKED, VOCABULARY, Blue(), *SIDES, options, lessons=unasked)


def test_a_lesson_has_null_for_what_the_shop_does_not_state():
    asked = Asked(ItemText("Crème shoe"), ("colour", "material"))
    assert Lesson(asked, {"colour": "Crème", "size": "9"}).answer == '{"colour": "Crème", "material": null}'


def test_prompts_are_those_of_a_night(folder):
    """trl writes a prompt by the chat template as `answered` does, also where the template knows no message of the system."""
    strict = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}" + TEMPLATE
    tokenizer, chat = AutoTokenizer.from_pretrained(folder), chat_about(ASKED[0], VOCABULARY)
    for template, roles in ((TEMPLATE, ["system", "user"]), (strict, ["user"])):
        tokenizer.chat_template = template
        reader = TextReader(tokenizer)
        found = reader.messages(chat)
        assert [message["role"] for message in found] == roles
        ids = tokenizer.apply_chat_template([found], tokenize=True, add_generation_prompt=True, return_dict=True)["input_ids"][0]
        assert ids == tokenizer(reader.prompt(chat).text, add_special_tokens=False)["input_ids"]


def test_what_is_missing_is_said_in_one_line(folder, monkeypatch, tmp_path):
    blank = [Asked(ItemText(""), ("colour",), False)] * 12
    with monkeypatch.context() as patched:
        patched.setattr(module, "find_spec", lambda name: None if name == "trl" else object())
        with pytest.raises(UsageError, match="trl is not installed: .*pip install 'tgq.reinforce.'"):
            reinforce_model(local_of(folder), ASKED, VOCABULARY, Blue(), *SIDES, ModelReinforceConfig())
    monkeypatch.setattr(module, "find_spec", lambda name: object())
    untold = written(tmp_path / "untold", template=None)
    for place, said in ((tmp_path / "nowhere", "does not exist"), (tmp_path, "has no weights"), (untold, "no chat template")):
        with pytest.raises(ModelError, match=said):
            need_model(local_of(place))
    with pytest.raises(SourceError, match="no item with a relevance pair can be asked about"):
        reinforce_model(local_of(folder), blank, VOCABULARY, Blue(), *SIDES, ModelReinforceConfig())
    with pytest.raises(ConfigError, match="--reinforce-option samples=1: .*greater than or equal to 2"):
        dataclass_of(ModelReinforceConfig, ["samples=1"], "--reinforce-option")
