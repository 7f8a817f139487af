"""How the client shows who it is: private_key_jwt, and pushed authorization requests."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

from bff.cli import main
from bff.client_key import key_id, load_client_key, public_jwks
from bff.errors import ClientRefused, ProviderRefused, ProviderUnavailable, PublicError
from bff.provider.client import Provider
from bff.provider.renewal import Refreshed
from tests.support.client import begin, client_of, query_of, sign_in, token_set
from tests.support.provider import (
    CLIENT_ID,
    HTML,
    Grant,
    Reply,
    ScriptedProvider,
    ec_key,
    okp_key,
    rsa_key,
    scripted_provider,
)


@pytest.fixture
def scripted() -> Iterator[ScriptedProvider]:
    with scripted_provider() as provider:
        yield provider


KEYS: dict[str, Any] = {
    "RSA": rsa_key("client-rsa"),
    "P-256": ec_key("client-256"),
    "P-384": ec_key("client-384", "P-384"),
    "P-521": ec_key("client-521", "P-521"),
    "Ed25519": okp_key("client-okp"),
}


def keyed(scripted: ScriptedProvider, path: Path) -> Provider:
    """The client that shows who it is by the key of that file, and has no secret."""
    return client_of(
        scripted,
        without=("oidc_client_secret",),
        oidc_client_auth="private_key_jwt",
        oidc_client_key_file=str(path),
    )


def jwk_file(folder: Path, key: Any, **changes: Any) -> Path:
    path = folder / "client.jwk"
    path.write_text(json.dumps(key.as_dict(private=True) | changes))
    return path


@pytest.mark.parametrize("kind", KEYS)
@pytest.mark.parametrize("form", ["JWK", "PEM"])
def test_private_key_jwt(scripted: ScriptedProvider, tmp_path: Path, kind: str, form: str) -> None:
    """Sign-in, refresh and revocation carry an assertion that the registered key verifies, a new one each."""
    key = KEYS[kind]
    path = jwk_file(tmp_path, key)
    if form == "PEM":
        path.write_bytes(key.as_pem(private=True))
    scripted.client_keys = public_jwks(load_client_key(path))
    provider = keyed(scripted, path)
    signed_in = sign_in(scripted, provider)
    assert isinstance(provider.refresh(signed_in.tokens, lambda _issuer, _sub: True), Refreshed)
    provider.revoke(signed_in.tokens)
    assert len(scripted.assertions) == 2
    for endpoint in ("token", "revoke"):
        seen = scripted.last(endpoint)
        assert seen.form["client_id"] == CLIENT_ID
        assert seen.form["client_assertion_type"] == "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
        assert seen.basic is None
        assert "client_secret" not in seen.form


def test_the_assertion_says_what_it_must(scripted: ScriptedProvider, tmp_path: Path) -> None:
    """Issuer and subject are the client, the audience the token endpoint, and it is good for a minute."""
    path = jwk_file(tmp_path, KEYS["RSA"])
    scripted.client_keys = public_jwks(load_client_key(path))
    provider = keyed(scripted, path)
    sign_in(scripted, provider)
    head, body, _ = scripted.last("token").form["client_assertion"].split(".")
    header = json.loads(base64.urlsafe_b64decode(head + "=="))
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    assert header == {"alg": "RS256", "kid": "client-rsa", "typ": "JWT"}
    assert claims["iss"] == claims["sub"] == CLIENT_ID
    assert claims["aud"] == scripted.base + "/token"
    assert claims["exp"] - claims["iat"] == 60
    assert len(claims["jti"]) >= 24


def test_a_key_that_is_not_registered(scripted: ScriptedProvider, tmp_path: Path) -> None:
    """The provider's refusal is told as that of the client, not of the code."""
    path = jwk_file(tmp_path, KEYS["RSA"])
    scripted.replies["token"] = Reply(401, {"error": "invalid_client"})
    provider = keyed(scripted, path)
    with pytest.raises(ClientRefused):
        sign_in(scripted, provider)


def test_key_ids_and_public_halves(tmp_path: Path) -> None:
    """The JWK's own kid, else its RFC 7638 thumbprint; what is to be registered holds nothing private."""
    named = load_client_key(jwk_file(tmp_path, KEYS["RSA"]))
    assert key_id(named) == "client-rsa"
    path = tmp_path / "key.pem"
    path.write_bytes(KEYS["RSA"].as_pem(private=True))
    assert key_id(load_client_key(path)) == KEYS["RSA"].thumbprint()
    done = CliRunner().invoke(main, ["keys", "public", str(path)])
    assert done.exit_code == 0
    (key,) = json.loads(done.stdout)["keys"]
    assert (key["kid"], key["use"], key["alg"]) == (KEYS["RSA"].thumbprint(), "sig", "RS256")
    assert not {"d", "p", "q", "dp", "dq", "qi", "k"} & set(key)


def test_the_jwks_own_algorithm(tmp_path: Path) -> None:
    """A JWK may ask for PS256."""
    key = load_client_key(jwk_file(tmp_path, KEYS["RSA"], alg="PS256"))
    assert public_jwks(key)["keys"][0]["alg"] == "PS256"


def _short_rsa_key() -> str:
    key = rsa.generate_private_key(65537, 1024)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


BAD_KEYS: dict[str, str] = {
    "nothing": "",
    "no key": "hello",
    "broken JSON": "{",
    "an array": "[]",
    "a secret": json.dumps(OctKey.generate_key(256).as_dict(private=True)),
    "public RSA": json.dumps(RSAKey.generate_key(2048).as_dict(private=False)),
    "public PEM": ECKey.generate_key("P-256").as_pem(private=False).decode(),
    "short RSA": _short_rsa_key(),
    "X25519": json.dumps(OKPKey.generate_key("X25519").as_dict(private=True)),
    "secp256k1": json.dumps(ECKey.generate_key("secp256k1").as_dict(private=True)),
}


@pytest.mark.parametrize("text", BAD_KEYS.values(), ids=BAD_KEYS)
def test_files_that_are_no_client_keys(tmp_path: Path, text: str) -> None:
    """Said in a sentence that quotes nothing of the file."""
    path = tmp_path / "key"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"^(is|must) ") as caught:
        load_client_key(path)
    assert len(str(caught.value)) < 90
    done = CliRunner().invoke(main, ["keys", "public", str(path)])
    assert done.exit_code == 1
    assert "Traceback" not in done.output


# -- pushed authorization requests ------------------------------------------------------------------


@pytest.fixture
def pushing(scripted: ScriptedProvider) -> ScriptedProvider:
    """A provider that takes pushed requests."""
    scripted.discovery["pushed_authorization_request_endpoint"] = scripted.base + "/par"
    return scripted


def test_pushed_request(pushing: ScriptedProvider) -> None:
    """Where the provider offers it, the browser carries a reference and the client's id, nothing else."""
    provider = client_of(pushing)
    url, attempt = begin(provider, login_hint="alice", max_age="60")
    assert set(query_of(url)) == {"client_id", "request_uri"}
    seen = pushing.last("par")
    assert seen.basic is not None
    assert seen.form["response_type"] == "code"
    assert (seen.form["state"], seen.form["nonce"]) == (attempt.state, attempt.nonce)
    assert (seen.form["code_challenge_method"], seen.form["login_hint"]) == ("S256", "alice")
    assert attempt.code_verifier not in seen.body
    response = pushing.authorize(url)
    assert provider.redeem(response["code"], attempt).identity.claims["email"] == "alice@example.com"


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post", "private_key_jwt"])
def test_a_pushed_request_names_each_parameter_once(
    pushing: ScriptedProvider, tmp_path: Path, method: str
) -> None:
    """Also where the client shows itself in the body: providers refuse what comes twice (RFC 6749 §3.2)."""
    if method == "private_key_jwt":
        path = jwk_file(tmp_path, KEYS["RSA"])
        pushing.client_keys = public_jwks(load_client_key(path))
        provider = keyed(pushing, path)
    else:
        provider = client_of(pushing, oidc_client_auth=method)
    begin(provider)
    names = [name for name, _ in parse_qsl(pushing.last("par").body)]
    assert "client_id" in names
    assert len(names) == len(set(names))


def test_an_endpoint_with_a_query_of_its_own(pushing: ScriptedProvider) -> None:
    """The authorization endpoint's own parameters stay in the browser's address."""
    pushing.discovery["authorization_endpoint"] = pushing.base + "/authorize?p=policy"
    url, _ = begin(client_of(pushing))
    assert set(query_of(url)) == {"p", "client_id", "request_uri"}
    assert "p" not in pushing.last("par").form


PUSH_FAILURES: list[tuple[Reply, type[PublicError]]] = [
    (Reply(401, {"error": "invalid_client"}), ClientRefused),
    (Reply(400, {"error": "invalid_request"}), ProviderRefused),
    (Reply(400, {"error": "invalid_redirect_uri"}), ProviderRefused),
    (Reply(500), ProviderUnavailable),
    (Reply(200, {"request_uri": "urn:x"}), ProviderUnavailable),
    (Reply(201, {}), ProviderUnavailable),
    (Reply(201, {"request_uri": 7}), ProviderUnavailable),
    (Reply(201, b"[]"), ProviderUnavailable),
    (Reply(201, b"[" * 200_000), ProviderUnavailable),
    (Reply(201, b'{"request_uri": "\\ud800"}'), ProviderUnavailable),
    (Reply(201, {"request_uri": "urn:a\r\nX: y"}), ProviderUnavailable),
    (Reply(201, {"request_uri": ""}), ProviderUnavailable),
    (Reply(201, {"request_uri": "x" * 100_000}), ProviderUnavailable),
    (Reply(302, b"", {"Location": "/elsewhere"}), ProviderUnavailable),
    (Reply(drop=True), ProviderUnavailable),
    (Reply(delay=8), ProviderUnavailable),
    (HTML, ProviderUnavailable),
]


@pytest.mark.parametrize(("reply", "error"), PUSH_FAILURES, ids=lambda value: str(value)[:40])
def test_push_failures(pushing: ScriptedProvider, reply: Reply, error: type[PublicError]) -> None:
    """Each is an error at sign-in; the request is never sent in the open instead."""
    pushing.replies["par"] = reply
    with pytest.raises(error):
        begin(client_of(pushing))
    assert pushing.count("/elsewhere") == 0


# -- resources --------------------------------------------------------------------------------------


def test_resources_of_the_users_token(scripted: ScriptedProvider, tmp_path: Path) -> None:
    """APIs that routes name are asked for at sign-in and at the redeem (RFC 8707)."""
    config = tmp_path / "bff.toml"
    config.write_text(
        "".join(
            f'[[routes]]\npath = "/{name}"\nupstream = "http://x"\nresource = "https://{name}.example"\n'
            for name in ("one", "two")
        )
    )
    provider = client_of(scripted, config=str(config))
    url, attempt = begin(provider)
    pairs = [pair for pair in url.split("&") if pair.startswith("resource=")]
    assert pairs == ["resource=https%3A%2F%2Fone.example", "resource=https%3A%2F%2Ftwo.example"]
    asked = url.replace("&" + "&".join(pairs), "")
    provider.redeem(scripted.authorize(asked)["code"], attempt)
    assert "&".join(pairs) in scripted.last("token").body


def test_refreshed_nonce(scripted: ScriptedProvider) -> None:
    """A refreshed ID token may repeat the sign-in's nonce, and must not bring another (Core §12.2)."""
    provider = client_of(scripted)
    tokens = sign_in(scripted, provider).tokens
    scripted.grants["again"] = Grant(None, "", "")
    scripted.claims["nonce"] = "another"
    result = provider.refresh(tokens, lambda _issuer, _sub: True)
    assert not isinstance(result, Refreshed)
    assert token_set().nonce is None
