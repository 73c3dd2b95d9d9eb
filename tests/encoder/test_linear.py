import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tgq.encoder.layers.linear import LEAST_ROWS, Linear, linear, use_linear


@pytest.mark.parametrize("shape", [(3, 160), (LEAST_ROWS, 160), (4, 100, 160), (2, 3, 50, 160), (0, 160)])
@pytest.mark.parametrize("bias", [True, False])
def test_the_map_and_its_gradients_are_those_of_torch(shape, bias):
    torch.manual_seed(0)
    x, weight, shift = torch.randn(shape, requires_grad=True), torch.randn(5, 160, requires_grad=True), torch.randn(5, requires_grad=True)
    inputs = (x, weight, shift) if bias else (x, weight)
    found, meant = linear(*inputs), F.linear(*inputs)
    torch.testing.assert_close(found, meant, rtol=1e-5, atol=1e-5)
    grad = torch.randn_like(meant)
    for own, theirs in zip(torch.autograd.grad(found, inputs, grad), torch.autograd.grad(meant, inputs, grad), strict=True):
        torch.testing.assert_close(own, theirs, rtol=1e-4, atol=1e-4)


def test_many_rows_run_in_onednn_with_one_thread_and_other_precisions_in_torch():
    def operations(x, weight):
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            linear(x, weight)
        return {event.key for event in profile.key_averages()}

    threads, x, weight = torch.get_num_threads(), torch.randn(LEAST_ROWS, 160), torch.randn(64, 160)
    torch.set_num_threads(1)
    try:
        assert "aten::mkldnn_convolution" in operations(x, weight)
        assert "aten::mkldnn_convolution" not in operations(x[:-1], weight)
        assert "aten::mkldnn_convolution" not in operations(x.double(), weight.double())
    finally:
        torch.set_num_threads(threads)


def test_every_linear_layer_of_a_model_is_replaced_with_its_weights():
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Sequential(nn.Linear(8, 2, bias=False), nn.Identity())).eval()
    names, x = list(model.state_dict()), torch.randn(3, 4)
    before, weights = model(x), [model[0].weight, model[2][0].weight]
    use_linear(model)
    assert [type(m) for m in model.modules() if isinstance(m, nn.Linear)] == [Linear, Linear] and not any(m.training for m in model.modules())
    assert list(model.state_dict()) == names and model[0].weight is weights[0] and model[2][0].weight is weights[1]
    assert torch.equal(model(x), before)
