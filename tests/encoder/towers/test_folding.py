import pytest
import torch
from torch import nn

from tgq.encoder.towers.folding import PointwiseConv2d, folded


class Block(nn.Module):
    """Two convolutions with batch norms as after training: no statistic, scale or shift is trivial."""

    def __init__(self, reads_before_norm: bool = False, twice: bool = False):
        super().__init__()
        self.first, self.norm, self.act = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU6()
        self.second, self.other_norm = nn.Conv2d(8, 8, 1, bias=False), nn.BatchNorm2d(8)
        self.reads_before_norm, self.twice = reads_before_norm, twice
        for norm in (self.norm, self.other_norm):
            for value in (norm.running_mean, norm.weight, norm.bias):
                nn.init.normal_(value)
            nn.init.uniform_(norm.running_var, 0.5, 2.0)
        self.eval()

    def forward(self, x):
        before = self.first(x)
        hidden = self.act(self.norm(before))
        hidden = self.other_norm(self.second(hidden)) + hidden
        hidden = self.other_norm(self.second(hidden)) if self.twice else hidden
        return hidden + before if self.reads_before_norm else hidden


def norms(model):
    return sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())


def both(**kind):
    torch.manual_seed(0)
    block, probe, x = Block(**kind), torch.randn(1, 3, 8, 8), torch.randn(4, 3, 16, 12)
    with torch.no_grad():
        meant = block(x)
        found = folded(block, lambda model: model(probe))
        torch.testing.assert_close(found(x), meant, rtol=1e-4, atol=1e-4)
    return block, found


def test_every_batch_norm_is_folded_and_the_model_that_was_given_is_left_alone():
    block, found = both()
    assert norms(found) == 0 and found.act.inplace
    assert norms(block) == 2 and not block.act.inplace


def test_a_convolution_that_is_read_before_its_norm_leaves_the_model_as_it_is():
    block, found = both(reads_before_norm=True)
    assert found is block and norms(block) == 2


def test_a_convolution_that_runs_twice_keeps_its_norm():
    _, found = both(twice=True)
    assert norms(found) == 1


def test_a_model_without_batch_norm_is_itself():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval()
    assert folded(model, lambda m: m(torch.randn(1, 3, 8, 8))) is model


def test_convolutions_of_one_pixel_run_in_onednn_with_one_thread():
    block, found = both()
    assert isinstance(found.second, PointwiseConv2d) and not isinstance(block.second, PointwiseConv2d)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        names = {}
        for model in (block, found):
            with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile, torch.no_grad():
                model.second(torch.randn(1, 8, 64, 64))
            names[model] = {event.key for event in profile.key_averages()}
    finally:
        torch.set_num_threads(threads)
    assert "aten::mkldnn_convolution" in names[found] and "aten::mkldnn_convolution" not in names[block]


class Squeeze(nn.Module):
    """A squeeze-and-excitation with the names of transformers' EfficientNet."""

    def __init__(self, weight: float, bias: float):
        super().__init__()
        self.reduce, self.expand, self.act_expand = nn.Conv2d(8, 2, 1), nn.Conv2d(2, 8, 1), nn.Sigmoid()
        nn.init.constant_(self.expand.weight, weight)
        nn.init.constant_(self.expand.bias, bias)

    def forward(self, x):
        return x * self.act_expand(self.expand(self.reduce(x.mean((2, 3), keepdim=True))))


@pytest.mark.parametrize(("weight", "bias", "left_out"), [(0.0, 40.0, True), (0.1, 40.0, False), (0.0, 3.0, False)])
def test_a_squeeze_and_excitation_is_left_out_where_it_multiplies_by_one(weight, bias, left_out):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 1, bias=False), nn.BatchNorm2d(8), Squeeze(weight, bias)).eval()
    x = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        found = folded(model, lambda m: m(x))
        torch.testing.assert_close(found(x), model(x))
    assert isinstance(found[2], nn.Identity) == left_out


@pytest.mark.parametrize(
    ("padding", "kernel", "joined"), [((0, 1, 0, 1), 3, True), ((1, 2, 1, 2), 5, True), ((1, 1, 1, 1), 3, False), ((0, 1, 1, 2), 3, False)]
)
@pytest.mark.parametrize("size", [(8, 8), (9, 12), (7, 7)])
def test_a_convolution_pads_for_itself_as_the_layer_before_it_did(padding, kernel, joined, size):
    torch.manual_seed(0)
    model = nn.Sequential(nn.ZeroPad2d(padding), nn.Conv2d(4, 4, kernel, stride=2, groups=4, bias=False), nn.BatchNorm2d(4), nn.ReLU()).eval()
    x = torch.randn(2, 4, *size)
    with torch.no_grad():
        found = folded(model, lambda m: m(torch.ones(1, 4, 8, 8).cumsum(2)))
        torch.testing.assert_close(found(x), model(x))
    assert isinstance(found[0], nn.Identity) == joined
