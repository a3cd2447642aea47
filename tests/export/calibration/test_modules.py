"""Curvature of any module against torch.func's own gradients, one item at a time."""

import numpy as np
import torch
from torch.func import functional_call, grad, vmap

from satchel.export.calibration.modules import curvatures, linears, mean_squares, random_projection


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.a = torch.nn.Linear(5, 7)
        self.body = torch.nn.Sequential(torch.nn.Tanh(), torch.nn.Linear(7, 4, bias=False))
        self.unused = torch.nn.Linear(3, 3)

    def forward(self, x):
        return self.body(self.a(x))


def setup():
    torch.manual_seed(0)
    net = Net().eval()
    return net, [{"x": torch.randn(6, 5)}, {"x": torch.randn(3, 5)}]


def number(output, batch):
    return output.square().sum()


def test_curvature_is_the_mean_square_of_each_items_own_gradient():
    net, batches = setup()
    found = curvatures(net, batches, number)
    assert set(found) == {"a", "body.1"}
    x = torch.cat([batch["x"] for batch in batches])
    each = vmap(grad(lambda p, x: functional_call(net, p, (x[None],)).square().sum()), (None, 0))
    gradients = each({name: p.detach() for name, p in net.named_parameters()}, x)
    for name in found:  # a gradient is g x', so that its product with itself is |g|^2 x x'
        weight = gradients[f"{name}.weight"].double()
        want = torch.einsum("nrc,nrd->cd", weight, weight) / len(x)
        np.testing.assert_allclose(found[name].hessian, want.numpy(), rtol=1e-4, atol=1e-6)
    squares = gradients["a.bias"].square().sum(0)
    np.testing.assert_allclose(found["a"].share, (squares / squares.sum()).numpy(), rtol=1e-4)


def test_nothing_of_the_module_is_changed():
    net, batches = setup()
    net.a.weight.requires_grad_(False)
    net.a.weight.grad, net.a.bias.grad = None, torch.ones(7)
    before = {n: p.detach().clone() for n, p in net.named_parameters()}
    curvatures(net, batches, number)
    mean_squares(net, batches)
    assert all(torch.equal(before[n], p) for n, p in net.named_parameters())
    assert not net.a.weight.requires_grad and net.body[1].weight.requires_grad
    assert torch.equal(net.a.bias.grad, torch.ones(7)) and net.body[1].weight.grad is None
    assert not any(part._forward_hooks for part in linears(net).values())


def test_a_random_projection_predicts_the_squared_distance():
    net, _ = setup()
    x = torch.randn(40, 5)
    generator = torch.Generator().manual_seed(1)
    curvature = curvatures(net, [{"x": x}] * 200, lambda y, _: random_projection(y, generator))["body.1"]
    error = 1e-2 * torch.randn(4, 7)
    moved = (net.body[0](net.a(x)) @ error.T).square().sum(1).mean() / 2
    assert abs(curvature.loss(error.numpy()) / moved.item() - 1) < 0.05


def test_mean_squares_leave_out_masked_positions():
    net = torch.nn.ModuleDict({"a": torch.nn.Linear(3, 2)})
    net.forward = lambda x, attention_mask: net["a"](x)
    x = torch.tensor([[[1.0, 2, 3], [9, 9, 9]], [[3.0, 0, 1], [1, 2, 1]]])
    batch = {"x": x, "attention_mask": torch.tensor([[1, 0], [1, 1]])}
    np.testing.assert_allclose(mean_squares(net, [batch])["a"], [11 / 3, 8 / 3, 11 / 3], rtol=1e-6)
