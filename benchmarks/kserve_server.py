"""A real server of the KServe v2 protocol that can be told to answer wrongly.

It runs the same models with ONNX Runtime; a file says how it answers: `right`, or one of WRONG. As
a process: `python -m benchmarks.kserve_server MODELS VARIANT PORT MODE_FILE`.
"""

import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnxruntime
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc

WRONG = ("nan", "shape", "name", "bytes", "version", "other", "error", "silent")
_TYPES = {"INT64": np.int64, "FP32": np.float32}


class KServe(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """Answers about and with the newest version of every model in `models`."""

    def __init__(self, models: Path, mode: Path, variant: str = "python") -> None:
        self._mode = mode
        self.configs: dict[str, Any] = {}
        self._sessions: dict[tuple[str, str], Any] = {}
        self.seconds_left: list[float | None] = []  # of each inference, as the caller said
        self._ended = threading.Event()
        self.withdrawn = threading.Event()  # a request was given up by who asked
        for folder in sorted(path for path in models.iterdir() if path.is_dir()):
            text = (folder / "configs" / f"{variant}.pbtxt").read_text()
            self.configs[folder.name] = text_format.Parse(text, model_config_pb2.ModelConfig())
            for version in folder.iterdir():
                if version.name.isdigit():
                    session = onnxruntime.InferenceSession(str(version / "model.onnx"))
                    self._sessions[folder.name, version.name] = session

    def end(self) -> None:
        """Let go of requests that are held."""
        self._ended.set()

    def ServerReady(self, request: Any, context: Any) -> Any:  # noqa: N802
        return service_pb2.ServerReadyResponse(ready=True)

    def RepositoryIndex(self, request: Any, context: Any) -> Any:  # noqa: N802
        answer = service_pb2.RepositoryIndexResponse()
        for name, version in self._sessions:
            answer.models.add(name=name, version=version, state="READY")
        return answer

    def ModelConfig(self, request: Any, context: Any) -> Any:  # noqa: N802
        return service_pb2.ModelConfigResponse(config=self.configs[request.name])

    def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.seconds_left.append(context.time_remaining())
        mode = self._mode.read_text().strip()
        if mode == "silent":
            while context.is_active() and not self._ended.wait(0.02):
                pass
            self.withdrawn.set()
        if mode == "error":
            context.abort(grpc.StatusCode.INTERNAL, "out of order")
        feed = {
            one.name: np.frombuffer(content, _TYPES[one.datatype]).reshape(tuple(one.shape))
            for one, content in zip(request.inputs, request.raw_input_contents, strict=True)
        }
        (found,) = self._sessions[request.model_name, request.model_version].run(None, feed)
        return _answer(request, self.configs[request.model_name].output[0].name, found, mode)


def _answer(request: Any, output: str, found: Any, mode: str) -> Any:
    if mode == "nan":
        found = np.full_like(found, np.nan)
    elif mode == "other":
        found = found[..., ::-1] + 1
    elif mode == "shape":
        found = found[..., :-1]
    answer = service_pb2.ModelInferResponse(
        model_name=request.model_name,
        model_version="99" if mode == "version" else request.model_version,
    )
    name = "surprise" if mode == "name" else output
    answer.outputs.add(name=name, datatype="FP32", shape=found.shape)
    content = np.ascontiguousarray(found).tobytes()
    answer.raw_output_contents.append(content[:-4] if mode == "bytes" else content)
    return answer


@contextmanager
def serving(service: KServe, port: int = 0) -> Iterator[int]:
    """The service on 127.0.0.1; its port."""
    server = grpc.server(ThreadPoolExecutor(32))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(service, server)
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    try:
        yield bound
    finally:
        service.end()
        server.stop(0).wait()


if __name__ == "__main__":
    where, variant, number, told = sys.argv[1:]
    with serving(KServe(Path(where), Path(told), variant), int(number)):
        threading.Event().wait()
