r"""A character GPT, trained by peers that hardly communicate, while one is killed and one comes.

    python examples/diloco_char_gpt.py

trains it four times, on Python's own documentation, which comes with it: with gradients averaged in
each step (dp), and by DiLoCo, Streaming DiLoCo and NoLoCo. Each time four processes of this machine
begin, one of them dies by SIGKILL, and a new one joins. In the end there is a table, and a plot of
the loss over time and over bytes. It needs torch and, for the plot, matplotlib.

train() is what a peer does. For a machine with CUDA:

    python examples/diloco_char_gpt.py --device cuda --layers 6 --width 384 --heads 6 \
        --context 256 --batch 64 --steps 5000 --sync-every 100 --lr 1e-3
"""

import argparse
import importlib.util
import os
import sys

if importlib.util.find_spec("torch") is None:
    sys.exit("this example needs torch: pip install 'pyccl-ft[torch]'")

import torch
from char_gpt.data_parallel import DataParallel
from char_gpt.model import GPT, Text
from char_gpt.run import Reporter, Supervisor
from char_gpt.view import plot, plot_lacks, summary, view

import pyccl
from pyccl.testing import PeerProcessError

if __name__ != "__main__":  # but in a peer
    # Optimizers import it as they are made, which takes a second or two: others would wait for it.
    import torch._dynamo

METHODS = ("dp", "diloco", "streaming", "noloco")
FRAGMENTS = 4


def make_optimizer(method, model, comm, options):
    """All have the same surface. Newcomers get here what the others have come to."""
    inner = torch.optim.AdamW(model.parameters(), lr=options.lr)
    if method == "dp":
        return DataParallel(model, inner, comm)
    if method == "diloco":
        return pyccl.optim.DiLoCo(
            model.parameters(),
            inner,
            comm,
            sync_every=options.sync_every,
            outer_lr=options.outer_lr,
            outer_momentum=options.outer_momentum,
        )
    if method == "streaming":
        return pyccl.optim.StreamingDiLoCo(
            model.named_parameters(),
            inner,
            comm,
            sync_every=options.sync_every,
            outer_lr=options.outer_lr,
            outer_momentum=options.outer_momentum,
            fragments=FRAGMENTS,
            overlap=1,
            quantization="int4",
        )
    return pyccl.optim.NoLoCo(
        model.parameters(), inner, comm, sync_every=options.sync_every, admit_every=2
    )


def train(comm, index, method, options):
    """What a peer does with what pyccl.connect() has given it; the held-out loss at the end."""
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // options.peers))
    device = device_of(index, options)
    text = Text(options.text, options.context, device)
    model = GPT(text.alphabet, options.context, options.layers, options.width, options.heads)
    optimizer = make_optimizer(method, model.to(device), comm, options)

    def held_out_loss():
        with optimizer.outer_params():
            return text.held_out_loss(model)

    reporter = Reporter(index, optimizer, options.sync_every, held_out_loss)
    batches = text.batches(options.batch, seed=index)  # each peer draws its own
    # They are counted by all alike, newcomers included.
    while optimizer.steps < options.steps:
        x, y = next(batches)
        loss = model(x, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        reporter.tell(loss.item())
    if method == "noloco":
        optimizer.average()  # until here each peer has a model of its own
    return reporter.end()


def device_of(index, options):
    """Of several GPUs each peer has one, or its share of one."""
    if options.device != "cuda":
        return options.device
    return f"cuda:{index % torch.cuda.device_count()}"


def parse():
    parser = argparse.ArgumentParser(
        description="Train a character GPT by peers that hardly communicate."
    )
    parser.add_argument("--method", choices=METHODS, action="append", help="only this one")
    parser.add_argument("--peers", type=int, default=4)
    parser.add_argument("--steps", type=int, default=400, help="inner ones, of each peer")
    parser.add_argument("--sync-every", type=int, default=20, help="inner steps")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--context", type=int, default=64, help="characters")
    parser.add_argument("--batch", type=int, default=16, help="pieces of text, for each peer")
    parser.add_argument("--lr", type=float, default=2e-3, help="of AdamW")
    parser.add_argument("--outer-lr", type=float, default=0.8)
    parser.add_argument(
        "--outer-momentum", type=float, default=0.5, help="of a long run better 0.9 [%(default)s]"
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda (all that there are), cuda:1")
    parser.add_argument("--text", metavar="FILE", help="another text to learn")
    parser.add_argument("--plot", metavar="FILE", default="diloco_char_gpt.png")
    parser.add_argument("--no-plot", dest="plot", action="store_const", const=None)
    parser.add_argument(
        "--no-churn", dest="churn", action="store_false", help="nobody dies, and nobody comes"
    )
    options = parser.parse_args()
    options.method = options.method or METHODS
    if fault := fault_of(options):
        parser.error(fault)
    return options


def fault_of(options):
    """What is wrong with the options, before any process has begun; None if nothing is."""
    for name in ("peers", "steps", "sync_every", "layers", "width", "heads", "context", "batch"):
        if getattr(options, name) < 1:
            return f"--{name.replace('_', '-')} must be 1 or more"
    if options.churn and options.peers < 2:
        return "with one peer there is nobody to kill: take --peers 2, or --no-churn"
    if options.width % options.heads:
        return f"--width must be a multiple of --heads, {options.heads}"
    if options.steps % options.sync_every:
        return f"--steps must be a multiple of --sync-every, {options.sync_every}"
    if options.churn and options.steps < 8 * options.sync_every:
        return "who comes needs some time: --steps must be 8 times --sync-every, or say --no-churn"
    if "streaming" in options.method and options.sync_every < 2 * FRAGMENTS:
        return f"streaming has {FRAGMENTS} fragments: --sync-every must be {2 * FRAGMENTS} or more"
    try:
        torch.empty(0, device=options.device)
    except (AssertionError, RuntimeError) as error:
        return f"--device {options.device}: {error}"
    if options.plot and not os.path.isdir(os.path.dirname(options.plot) or "."):
        return f"--plot {options.plot}: there is no such folder"
    if options.plot and (missing := plot_lacks()):
        return f"--plot needs matplotlib: pip install 'pyccl-ft[plot]', or --no-plot ({missing})"
    return None


def main():
    options = parse()
    try:
        entropy = Text(options.text, options.context, "cpu").entropy
        runs = []
        for method in options.method:
            with view() as screen:
                runs.append(Supervisor(train, method, options, screen).run())
    except (OSError, ValueError, PeerProcessError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
    print(summary(runs, entropy))
    if options.plot:
        plot(runs, entropy, options.plot)
        print(f"the curves are in {options.plot}")


if __name__ == "__main__":
    main()
