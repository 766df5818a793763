"""fastconv's models as PyTorch's, layer by layer, with the same weights: names and arguments are alike."""

ARGUMENTS = {
    "Conv2d": "in_channels out_channels kernel_size stride padding dilation groups",
    "Linear": "in_features out_features",
    "MaxPool2d": "kernel_size stride padding dilation",
    "AvgPool2d": "kernel_size stride padding",
    "AdaptiveAvgPool2d": "output_size",
    "BatchNorm2d": "num_features",
    "Dropout": "p",
    "Flatten": "", "ReLU": "", "Tanh": "", "Sigmoid": "",
}  # fmt: skip


def model(torch, ours):
    """A torch.nn.Module that computes what a `fastconv.nn.Module` does, weights included."""
    made = _built(torch, ours)
    made.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in ours.state_dict().items()})
    return made


def _built(torch, ours):
    kind, children = type(ours).__name__, dict(ours.named_children())
    if kind == "Sequential":
        made = torch.nn.Sequential()
        for name, child in children.items():
            made.add_module(name.rpartition(".")[2], _built(torch, child))
        return made
    if kind == "Residual":
        return _residual(torch, *(child and _built(torch, child) for child in (ours.main, ours.shortcut)))
    values = {name: getattr(ours, name) for name in ARGUMENTS[kind].split()}
    if kind in ("Conv2d", "Linear"):
        values["bias"] = ours.bias is not None
    return getattr(torch.nn, kind)(**values)


def _residual(torch, main, shortcut):
    class Residual(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.main, self.shortcut = main, shortcut

        def forward(self, x):
            return self.main(x) + (x if self.shortcut is None else self.shortcut(x))

    return Residual()


def call(torch, problem, direction, x, target, rate, last=False):
    """The call to be timed, as `networks.call` describes it; last: weights in channels_last."""
    made = model(torch, problem.model()).to(x.device)
    if last:
        made = made.to(memory_format=torch.channels_last)
    if direction == "forward":
        made.eval()
        return lambda: made(x)
    optimizer, loss_of = torch.optim.SGD(made.parameters(), rate), torch.nn.functional.cross_entropy

    def step():
        with torch.enable_grad():
            optimizer.zero_grad()
            logits = made(x)
            loss = loss_of(logits, target)
            loss.backward()
        optimizer.step()
        return loss, logits, *(parameter.grad for parameter in made.parameters())

    return step
