"""What we say to a Triton server: the KServe v2 protocol over one gRPC connection.

Every answer is held against the manifest before anybody uses it: a server that answers under the
right name with other tensors is a failure like any other.
"""

import json
from collections.abc import Collection
from time import monotonic
from typing import Any

import grpc
import numpy as np
from google.protobuf.json_format import MessageToDict
from tritonclient.grpc import service_pb2, service_pb2_grpc

from contract.encoding import Encoded
from contract.errors import UserError
from contract.manifest import ModelEntry, Tensor
from serving.inference.backend import InferenceFailed, Outputs
from serving.tls import TlsSettings

_CONTROL_SECONDS = 5.0  # questions that read no model
_LOAD_SECONDS = 120.0
_RENEWED_AFTER_S = 3.0
_TRITON_TYPES = {"int64": "INT64", "float32": "FP32"}
_OPTIONS = (
    # A server that comes back is found within half a second, not after gRPC's two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
    # A server that says nothing any more (its machine is gone, or it hangs) is known by that within
    # four seconds, and others behind its name have the calls; without it the half of two servers'
    # calls would be waited for until TCP gives up, after a quarter of an hour.
    ("grpc.keepalive_time_ms", 2_000),
    ("grpc.keepalive_timeout_ms", 2_000),
    # Several servers behind one name share the calls; with one this changes nothing.
    ("grpc.service_config", '{"loadBalancingConfig": [{"round_robin": {}}]}'),
    # A new channel has connections of its own: see `renew`.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),  # an answer that came twice as late is of no use to a checkout
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_receive_message_length", 64 * 2**20),
)


def address_of(url: str) -> str:
    """`host:port` of grpc://host:port or host:port. Raises UserError."""
    address = url.removeprefix("grpc://").rstrip("/")
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or "/" in address:
        raise UserError(f"{url!r} is no address of a Triton server; write grpc://triton:8001")
    return address


class TritonClient:
    """One connection to the server at `address`, for one event loop, opened when first used; over
    TLS if there are settings of it."""

    def __init__(self, address: str, tls: TlsSettings | None = None) -> None:
        """Raises UserError when a file of `tls` is not what it should be."""
        self.address = address
        self._tls = tls
        self._pem = None if tls is None else tls.pem()
        self._channel: grpc.aio.Channel | None = None
        self._calls: Any = None
        self._opened_at = 0.0

    @property
    def _stub(self) -> Any:
        if self._calls is None:
            self._channel, self._opened_at = self._open(), monotonic()
            self._calls = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        return self._calls

    def _open(self) -> grpc.aio.Channel:
        if self._tls is None or self._pem is None:
            return grpc.aio.insecure_channel(self.address, options=_OPTIONS)
        credentials = grpc.ssl_channel_credentials(*self._pem)
        options = (*_OPTIONS, *self._tls.grpc_options())
        return grpc.aio.secure_channel(self.address, credentials, options=options)

    async def infer(self, entry: ModelEntry, batch: Encoded, timeout_s: float) -> Outputs:
        """Outputs of that very version for inputs with a batch dimension.

        Raises InferenceFailed, TimeoutError.
        """
        inputs = [np.ascontiguousarray(batch[tensor.name]) for tensor in entry.inputs]
        request = service_pb2.ModelInferRequest(
            model_name=entry.name,
            model_version=str(entry.version),
            inputs=[
                service_pb2.ModelInferRequest.InferInputTensor(
                    name=tensor.name, datatype=_TRITON_TYPES[tensor.dtype], shape=array.shape
                )
                for tensor, array in zip(entry.inputs, inputs, strict=True)
            ],
            raw_input_contents=[array.tobytes() for array in inputs],
        )
        answer = await self._call("ModelInfer", request, timeout_s)
        return _outputs(answer, entry, len(inputs[0]))

    async def versions(self, model: str) -> dict[int, str]:
        """What the server says of each version of `model` that it knows: READY, LOADING, ..."""
        index = await self._call(
            "RepositoryIndex", service_pb2.RepositoryIndexRequest(), _CONTROL_SECONDS
        )
        return {
            int(held.version): held.state
            for held in index.models
            if held.name == model and held.version.isdigit()
        }

    async def differences(self, entry: ModelEntry) -> list[str]:
        """How the server's configuration of that version departs from the manifest."""
        request = service_pb2.ModelConfigRequest(name=entry.name, version=str(entry.version))
        config = (await self._call("ModelConfig", request, _CONTROL_SECONDS)).config
        problems = [] if config.max_batch_size > 0 else ["it does not batch"]
        for kind, held, wanted in (
            ("input", config.input, entry.inputs),
            ("output", config.output, entry.outputs),
        ):
            given = {one.name: (_data_type(one), tuple(one.dims)) for one in held}
            problems += [
                f"{kind} {tensor.name} is {given.get(tensor.name)}, not {tensor}"
                for tensor in wanted
                if not _fits(given.get(tensor.name), tensor)
            ]
            extra = given.keys() - {tensor.name for tensor in wanted}
            problems += [f"{kind} {name} is not in the manifest" for name in sorted(extra)]
        return problems

    async def load(self, model: str, versions: Collection[int] = ()) -> None:
        """Ask the server to read `model` again; with `versions`, to serve exactly those instead of
        what its version policy says."""
        request = service_pb2.RepositoryModelLoadRequest(model_name=model)
        if versions:
            asked = service_pb2.ModelConfigRequest(name=model)
            config = (await self._call("ModelConfig", asked, _CONTROL_SECONDS)).config
            changed = MessageToDict(config, preserving_proto_field_name=True)
            changed["version_policy"] = {"specific": {"versions": sorted(versions)}}
            request.parameters["config"].string_param = json.dumps(changed)
        await self._call("RepositoryModelLoad", request, _LOAD_SECONDS)

    async def unload(self, model: str) -> None:
        """Ask the server to let go of every version of `model`."""
        request = service_pb2.RepositoryModelUnloadRequest(model_name=model)
        await self._call("RepositoryModelUnload", request, _CONTROL_SECONDS)

    async def renew(self) -> None:
        """Connect anew, for the calls from now on; those under way have a second left. gRPC's own
        look at a connection does not come through where it is full of what was not read."""
        if monotonic() - self._opened_at < _RENEWED_AFTER_S:
            return
        channel, self._channel, self._calls = self._channel, None, None
        if channel is not None:
            await channel.close(grace=1.0)

    async def close(self) -> None:
        """Close the connection."""
        channel, self._channel, self._calls = self._channel, None, None
        if channel is not None:
            await channel.close()

    async def _call(self, name: str, request: Any, timeout_s: float) -> Any:
        try:
            return await getattr(self._stub, name)(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                raise TimeoutError(f"no answer from {self.address} in time") from None
            said = " ".join((error.details() or "").split())[:300]
            raise ServerFailed(error.code(), f"{self.address}: {said}") from None


class ServerFailed(InferenceFailed):
    """The server answered with an error, or is not there."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code


def _outputs(answer: Any, entry: ModelEntry, size: int) -> Outputs:
    if answer.model_name != entry.name or answer.model_version != str(entry.version):
        raise InferenceFailed(
            f"answered by {answer.model_name} version {answer.model_version}, "
            f"not {entry.name} version {entry.version}"
        )
    held = {output.name: place for place, output in enumerate(answer.outputs)}
    found: Outputs = {}
    for tensor in entry.outputs:
        place = held.get(tensor.name)
        if place is None or place >= len(answer.raw_output_contents):
            raise InferenceFailed(f"output {tensor.name} is missing")
        output, content = answer.outputs[place], answer.raw_output_contents[place]
        shape = (size, *tensor.shape)
        dtype = np.dtype(tensor.dtype)
        if (
            output.datatype != _TRITON_TYPES[tensor.dtype]
            or tuple(output.shape) != shape
            or len(content) != dtype.itemsize * int(np.prod(shape))
        ):
            raise InferenceFailed(
                f"output {tensor.name} is {output.datatype} {tuple(output.shape)} "
                f"in {len(content)} bytes, not {tensor.dtype} {shape}"
            )
        found[tensor.name] = np.frombuffer(content, dtype).reshape(shape)
    return found


def _data_type(held: Any) -> str:
    name: str = (
        type(held)
        .DESCRIPTOR.fields_by_name["data_type"]
        .enum_type.values_by_number[held.data_type]
        .name
    )
    return name.removeprefix("TYPE_")


def _fits(given: tuple[str, tuple[int, ...]] | None, wanted: Tensor) -> bool:
    """Whether a tensor of the server's can be `wanted`; it may leave sizes open."""
    if given is None or given[0] != _TRITON_TYPES[wanted.dtype]:
        return False
    return len(given[1]) == len(wanted.shape) and all(
        held in (-1, size) for held, size in zip(given[1], wanted.shape, strict=True)
    )
