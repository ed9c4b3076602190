"""TLS settings, over real connections."""

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import obstore
import psycopg
import pytest
from obstore.exceptions import BaseError
from obstore.store import from_url
from tritonclient.grpc import service_pb2, service_pb2_grpc

from benchmarks.postgres_process import PostgresServer
from contract.errors import UserError
from serving.inference.triton_client import ServerFailed, TritonClient
from serving.settings import load_settings
from serving.state.postgres_place import postgres_place
from serving.tls import TlsSettings
from tests.serving.certificates import Authority, Signed


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """An authority that a client may trust."""
    return Authority(tmp_path, "trusted")


class Index(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """Answers one question of the KServe protocol as Triton does."""

    async def RepositoryIndex(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's name
        held = service_pb2.RepositoryIndexResponse.ModelIndex(
            name="ranker", version="3", state="READY"
        )
        return service_pb2.RepositoryIndexResponse(models=[held])


async def asked(server: Signed, client_ca: Path | None, tls: TlsSettings | None) -> dict[int, str]:
    """What a client with `tls` is told by a server that shows `server`."""
    running = grpc.aio.server()
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Index(), running)
    credentials = grpc.ssl_server_credentials(
        [(server.key.read_bytes(), server.cert.read_bytes())],
        None if client_ca is None else client_ca.read_bytes(),
        require_client_auth=client_ca is not None,
    )
    port = running.add_secure_port("127.0.0.1:0", credentials)
    await running.start()
    client = TritonClient(f"localhost:{port}", tls)
    try:
        return await client.versions("ranker")
    finally:
        await client.close()
        await running.stop(None)


async def test_a_model_server_is_spoken_to_over_tls(authority: Authority) -> None:
    server = authority.sign("localhost")
    assert await asked(server, None, TlsSettings(ca=authority.ca)) == {3: "READY"}


async def test_mutual_tls(authority: Authority) -> None:
    server, own = authority.sign("localhost"), authority.sign("gateway")
    tls = TlsSettings(ca=authority.ca, cert=own.cert, key=own.key)
    assert await asked(server, authority.ca, tls) == {3: "READY"}
    with pytest.raises(ServerFailed):
        await asked(server, authority.ca, TlsSettings(ca=authority.ca))


async def test_another_name_is_accepted_only_when_it_is_set(authority: Authority) -> None:
    server = authority.sign("triton.internal")
    with pytest.raises(ServerFailed):
        await asked(server, None, TlsSettings(ca=authority.ca))
    named = TlsSettings(ca=authority.ca, server_name="triton.internal")
    assert await asked(server, None, named) == {3: "READY"}


async def test_who_is_not_trusted_is_not_spoken_to(authority: Authority, tmp_path: Path) -> None:
    stranger = Authority(tmp_path / "other", "stranger").sign("localhost")
    for tls in (TlsSettings(ca=authority.ca), TlsSettings(), None):
        with pytest.raises(ServerFailed):
            await asked(stranger, None, tls)


@contextmanager
def echoing(server: Signed) -> Iterator[int]:
    """A TLS server that greets whoever trusts it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(server.cert, server.key)
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                plain, _ = listening.accept()
            except OSError:
                return
            try:
                with context.wrap_socket(plain, server_side=True) as secured:
                    secured.sendall(b"hello")
            except OSError:  # who does not trust us hangs up
                plain.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield listening.getsockname()[1]
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()
    thread.join()


def test_pythons_own_clients_take_the_same_settings(authority: Authority, tmp_path: Path) -> None:
    def greeted(port: int, tls: TlsSettings) -> bytes:
        with (
            socket.create_connection(("127.0.0.1", port)) as plain,
            tls.context().wrap_socket(plain, server_hostname="localhost") as secured,
        ):
            return secured.recv(5)

    other = Authority(tmp_path / "other", "stranger")
    with echoing(authority.sign("localhost")) as port:
        assert greeted(port, TlsSettings(ca=authority.ca)) == b"hello"
        for wrong in (TlsSettings(), TlsSettings(ca=other.ca)):
            with pytest.raises(ssl.SSLCertVerificationError):
                greeted(port, wrong)


class Files(SimpleHTTPRequestHandler):
    """Serves files and says nothing."""

    def log_message(self, format: str, *args: Any) -> None:
        """Not on the screen."""


def test_an_object_store_is_trusted_by_the_authority_that_the_environment_names(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = authority.sign("localhost")
    (tmp_path / "live.json").write_text("held")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(server.cert, server.key)
    listening = ThreadingHTTPServer(("127.0.0.1", 0), partial(Files, directory=str(tmp_path)))
    listening.socket = context.wrap_socket(listening.socket, server_side=True)
    thread = threading.Thread(target=listening.serve_forever, daemon=True)
    thread.start()

    def fetched() -> bytes:
        address = f"https://localhost:{listening.server_port}"
        store = from_url(address, retry_config={"max_retries": 0})
        return bytes(obstore.get(store, "live.json").bytes())

    try:
        with pytest.raises(BaseError):
            fetched()
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca))
        assert fetched() == b"held"
    finally:
        listening.shutdown()
        listening.server_close()
        thread.join()


def test_wrong_settings_are_one_clear_line(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, other = authority.sign("gateway"), authority.sign("other")
    wrong = {
        '{"ca": "/nowhere/ca.pem"}': "there is no file",
        f'{{"cert": "{own.cert}"}}': "belong together",
        '{"verify": false}': "Extra inputs",
        "{": "TILLWISE_TRITON_TLS",
    }
    for text, said in wrong.items():
        monkeypatch.setenv("TILLWISE_TRITON_TLS", text)
        with pytest.raises(UserError, match=said):
            load_settings()
    with pytest.raises(UserError, match="TLS settings"):
        TritonClient("localhost:1", TlsSettings(cert=own.cert, key=other.key))
    (tmp_path / "junk.pem").write_text("junk")
    with pytest.raises(UserError, match="TLS settings"):
        TlsSettings(ca=tmp_path / "junk.pem").context()


@pytest.fixture
def database_with(authority: Authority) -> Iterator[PostgresServer]:
    """A database that proves itself and asks nobody for less than TLS."""
    server, signed = PostgresServer(fsync="off"), authority.sign("localhost")
    try:
        server.make()
        server.set(listen_addresses="127.0.0.1,127.0.0.2")  # the second it can not prove to be
        server.set(ssl="on", ssl_cert_file=server.take(signed.cert))
        server.set(ssl_key_file=server.take(signed.key), ssl_ca_file=server.take(authority.ca))
        server.start()
        yield server
    finally:
        server.stop()


def test_a_database_is_believed_only_with_its_certificate(
    database_with: PostgresServer, authority: Authority, tmp_path: Path
) -> None:
    def asked(tls: TlsSettings, host: str = "localhost") -> str:
        url = f"postgresqls://{host}:{database_with.port}/postgres"
        place = postgres_place(url, user=database_with.user, tls=tls.postgresql())
        with place.connect(5) as connection:
            found = connection.execute(
                "SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
            )
            return str(found.fetchall()[0][0])

    own = authority.sign("gateway")
    assert asked(TlsSettings(ca=authority.ca)).startswith("TLSv1.")
    own.key.chmod(0o600)
    assert asked(TlsSettings(ca=authority.ca, cert=own.cert, key=own.key)).startswith("TLSv1.")
    stranger = Authority(tmp_path / "elsewhere", "other")
    for wrong in (TlsSettings(ca=stranger.ca), TlsSettings()):
        with pytest.raises(psycopg.OperationalError, match="certificate"):
            asked(wrong)
    with pytest.raises(psycopg.OperationalError, match="server certificate"):
        asked(TlsSettings(ca=authority.ca), "127.0.0.2")


def test_what_kafka_valkey_and_postgresql_are_told(authority: Authority) -> None:
    own = authority.sign("gateway")
    tls = TlsSettings(ca=authority.ca, cert=own.cert, key=own.key)
    assert tls.kafka() == {
        "security.protocol": "ssl",
        "ssl.endpoint.identification.algorithm": "https",
        "ssl.ca.location": str(authority.ca),
        "ssl.certificate.location": str(own.cert),
        "ssl.key.location": str(own.key),
    }
    assert tls.valkey()["ssl_ca_certs"] == str(authority.ca)
    assert tls.valkey()["ssl_check_hostname"] is True
    assert tls.postgresql()["sslmode"] == "verify-full"
    assert TlsSettings().postgresql()["sslrootcert"] == "system"
    renamed = TlsSettings(server_name="elsewhere")
    for told in (renamed.kafka, renamed.valkey, renamed.postgresql):
        with pytest.raises(UserError, match="server_name"):
            told()
