"""One small shop and one fit of it, shared by the tests of training."""

import hashlib
import pickle
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import torch

from contract.clock import FixedClock, from_us
from contract.whole_file import replace
from tests.once import made_once, shared_folder
from tests.training.processes import Launcher, launcher
from tests.training.shop import build_shop
from training.data.source import Source, read_source
from training.export import graphs
from training.fit import Fit
from training.recipes import Recipe, recipe
from training.recommender import Recommender
from training.run_folder import Run, read_run, write_run

# On matrices this small, and on cores that others use as well, threads wait more than they work.
torch.set_num_threads(1)

trace = graphs.to_onnx


def _traced_once(folder: Path) -> Callable[..., bytes]:
    """The same weights in the same graph give the same file: tracing is most of an export's time,
    and the tests export the one small fit again and again, in several processes."""

    def traced(
        name: str, graph: torch.nn.Module, example: Sequence[torch.Tensor], dimension: int
    ) -> bytes:
        told = hashlib.sha256(
            f"{name} {dimension} {graph} {[one.shape for one in example]}".encode()
        )
        for key, tensor in sorted(graph.state_dict().items()):
            told.update(key.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
        kept = folder / f"{told.hexdigest()}.onnx"
        if not kept.exists():
            replace(kept, trace(name, graph, example, dimension))
        return kept.read_bytes()

    return traced


@pytest.fixture(scope="session", autouse=True)
def traced_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = shared_folder(tmp_path_factory) / "traced"
    folder.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graphs, "to_onnx", _traced_once(folder))
        yield


@pytest.fixture(scope="module")
def launch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launcher]:
    with launcher(tmp_path_factory.mktemp("launched")) as launch:
        yield launch


SMALL = [
    "dimension=16",
    "negatives=32",
    "batch_size=64",
    "tower_examples=1200",
    "tower_epochs=6",
    "refit_epochs=1",
    "ranker_examples=500",
    "ranker_hidden=16",
    "ranker_epochs=14",
    "ranker_batch_size=16",
    "ranker_learning_rate=0.005",
    "ranker_days=30",
    "validation_examples=120",
    "learning_rate=0.02",
    "search_share=0.5",
]


def small_recipe(*settings: str) -> Recipe:
    """The demo recipe, small enough for seconds."""
    return recipe("demo", [*SMALL, *settings])


@pytest.fixture(scope="session")
def shop_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_shop(tmp_path_factory.mktemp("shop"))


@pytest.fixture(scope="session")
def source(shop_folder: Path) -> Source:
    return read_source(shop_folder)


@pytest.fixture(scope="session")
def fitted(source: Source, tmp_path_factory: pytest.TempPathFactory) -> tuple[Fit, Recommender]:
    def make(folder: Path) -> None:
        fit = Fit(source, small_recipe(), device=torch.device("cpu"))
        (folder / "fitted").write_bytes(pickle.dumps((fit, fit.run())))

    folder = made_once(tmp_path_factory, "fitted", make)
    found: tuple[Fit, Recommender] = pickle.loads((folder / "fitted").read_bytes())
    return found


@pytest.fixture(scope="session")
def run(
    source: Source, fitted: tuple[Fit, Recommender], tmp_path_factory: pytest.TempPathFactory
) -> Run:
    fit, recommender = fitted
    folder = tmp_path_factory.mktemp("run")
    write_run(folder, recommender, fit.recipe, source, fit.report, FixedClock(from_us(0)))
    return read_run(folder)
