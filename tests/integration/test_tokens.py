"""Tokens of an identity provider: the good ones count, and none of the bad ones of any known kind."""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import json
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.models import WINE
from tests.service import running_app
from wine_api.config import InvalidSetting, Rate, Settings
from wine_api.errors import IdentityProviderUnavailable
from wine_api.security import keys
from wine_api.security.access import Scope
from wine_api.security.tokens import PublicKeys, Tokens

# One of the bad ones is made with a weak key.
pytestmark = pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")

ISSUER, AUDIENCE = "https://id.example/", "wine-api"
RSA = rsa.generate_private_key(65537, 2048)
OTHER_RSA = rsa.generate_private_key(65537, 2048)
WEAK_RSA = rsa.generate_private_key(65537, 1024)
EC = ec.generate_private_key(ec.SECP256R1())
P384 = ec.generate_private_key(ec.SECP384R1())
PEM = RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def jwk(private, kid, **more):
    kind = jwt.algorithms.RSAAlgorithm if isinstance(private, rsa.RSAPrivateKey) else jwt.algorithms.ECAlgorithm
    return kind.to_jwk(private.public_key(), as_dict=True) | {"kid": kid, "use": "sig"} | more


SECRET = base64.urlsafe_b64encode(b"x" * 32).rstrip(b"=").decode()
JWKS = {
    "keys": [
        jwk(RSA, "rsa", alg="RS256"),
        jwk(EC, "ec"),
        jwk(WEAK_RSA, "weak"),
        jwk(OTHER_RSA, "for encryption", use="enc"),
        {"kty": "oct", "kid": "secret", "k": SECRET, "alg": "HS256"},
        {"kty": "unheard of", "kid": "odd"},
        jwk(OTHER_RSA, "alg a list") | {"alg": ["RS256"]},
        jwk(OTHER_RSA, "alg an object") | {"alg": {}},
        jwk(EC, "crv a list") | {"crv": ["P-256"]},
        jwk(OTHER_RSA, 7),
        jwk(OTHER_RSA, "n a number") | {"n": 7},
        jwk(OTHER_RSA, "kty a list") | {"kty": ["RSA"]},
        "nonsense",
    ]
}


def claims(**changes):
    now = int(time.time())
    everything = {"iss": ISSUER, "aud": AUDIENCE, "sub": "shop", "iat": now, "exp": now + 600, "scope": "predict"}
    return {name: value for name, value in (everything | changes).items() if value is not None}


def token(payload=None, key=RSA, algorithm="RS256", **headers):
    return jwt.encode(payload or claims(), key, algorithm, headers={"kid": "rsa"} | headers)


def part(document):
    return base64.urlsafe_b64encode(json.dumps(document).encode()).rstrip(b"=").decode()


def by_hand(header, payload, signature=b""):
    """Write a token that no library would."""
    return f"{part(header)}.{part(payload)}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


def hmac_with(secret, header):
    signed = f"{part(header)}.{part(claims())}"
    return by_hand(header, claims(), hmac.digest(secret, signed.encode(), hashlib.sha256))


def with_other_payload():
    head, _, signature = token().split(".")
    return f"{head}.{part(claims(scope='model:write'))}.{signature}"


NOW = int(time.time())
GOOD = {
    "RS256": token,
    "ES256": lambda: token(key=EC, algorithm="ES256", kid="ec"),
    "several audiences": lambda: token(claims(aud=["other", AUDIENCE])),
    "scopes in a list": lambda: token(claims(scope=["predict"])),
    "further scopes": lambda: token(claims(scope="openid predict")),
    "no subject": lambda: token(claims(sub=None)),
    "within the leeway": lambda: token(claims(exp=int(time.time()) - 2)),
    "a jku that nobody follows": lambda: token(jku="https://evil.example/jwks.json"),
}
BAD = {
    "alg none": lambda: by_hand({"alg": "none", "kid": "rsa"}, claims()),
    "alg NoNe": lambda: by_hand({"alg": "NoNe", "kid": "rsa"}, claims()),
    "no alg": lambda: by_hand({"kid": "rsa"}, claims(), b"x" * 256),
    "alg a list": lambda: by_hand({"alg": ["RS256"], "kid": "rsa"}, claims(), b"x" * 256),
    "HS256 with the public key as PEM": lambda: hmac_with(PEM, {"alg": "HS256", "kid": "rsa"}),
    "HS256 with the public key as JWK": lambda: hmac_with(
        json.dumps(JWKS["keys"][0]).encode(), {"alg": "HS256", "kid": "rsa"}
    ),
    "HS256 with a secret of the set": lambda: hmac_with(b"x" * 32, {"alg": "HS256", "kid": "secret"}),
    "HS256 with an empty secret": lambda: hmac_with(b"", {"alg": "HS256"}),
    "another key": lambda: token(key=OTHER_RSA),
    "an unknown kid": lambda: token(kid="unknown"),
    "a kid of a file": lambda: token(kid="../../../../dev/null"),
    "a kid of SQL": lambda: token(kid="' UNION SELECT 'x"),
    "kid a number": lambda: by_hand({"alg": "RS256", "kid": 1}, claims(), b"x" * 256),
    "its own key in jwk": lambda: token(key=OTHER_RSA, jwk=jwk(OTHER_RSA, "rsa")),
    "its own key in jwk, without a kid": lambda: token(key=OTHER_RSA, jwk=jwk(OTHER_RSA, "x"), kid="x"),
    "its own key by jku": lambda: token(key=OTHER_RSA, jku="https://evil.example/jwks.json"),
    "its own key by x5u": lambda: token(key=OTHER_RSA, x5u="https://evil.example/key.pem"),
    "its own key in x5c": lambda: token(key=OTHER_RSA, x5c=["MIIB"]),
    "an algorithm that is not allowed": lambda: token(algorithm="RS512"),
    "an algorithm of the same key": lambda: token(algorithm="PS256"),
    "a key for encryption": lambda: token(key=OTHER_RSA, kid="for encryption"),
    "a weak key": lambda: token(key=WEAK_RSA, kid="weak"),
    "another curve": lambda: token(key=P384, algorithm="ES384", kid="ec"),
    "an EC signature of nothing": lambda: by_hand({"alg": "ES256", "kid": "ec"}, claims(), bytes(64)),
    "a critical extension": lambda: token(crit=["exp"], exp=NOW),
    "a payload that was changed": with_other_payload,
    "a signature cut short": lambda: token()[:-20],
    "no signature": lambda: token().rpartition(".")[0] + ".",
    "two parts": lambda: token().rpartition(".")[0],
    "four parts": lambda: token() + ".x",
    "five parts, as encrypted ones have": lambda: "a.b.c.d.e",
    "not base64": lambda: "!!!.###.$$$",
    "not JSON": lambda: "YWJj.YWJj.YWJj",
    "a header of ten thousand brackets": lambda: (
        base64.urlsafe_b64encode(b"[" * 10_000).decode().rstrip("=") + ".e30.e30"
    ),
    "a payload that is a list": lambda: jwt.api_jws.encode(b"[]", RSA, "RS256", headers={"kid": "rsa"}),
    "expired": lambda: token(claims(exp=NOW - 3600)),
    "no expiry": lambda: token(claims(exp=None)),
    "an expiry in words": lambda: jwt.api_jws.encode(
        json.dumps(claims() | {"exp": "tomorrow"}).encode(), RSA, "RS256", headers={"kid": "rsa"}
    ),
    "an expiry in digits": lambda: jwt.api_jws.encode(
        json.dumps(claims() | {"exp": "9999999999"}).encode(), RSA, "RS256", headers={"kid": "rsa"}
    ),
    "an infinite expiry": lambda: jwt.api_jws.encode(
        json.dumps(claims() | {"exp": float("inf")}).encode(), RSA, "RS256", headers={"kid": "rsa"}
    ),
    "not valid yet": lambda: token(claims(nbf=NOW + 3600)),
    "issued in the future": lambda: token(claims(iat=NOW + 3600)),
    "another issuer": lambda: token(claims(iss="https://evil.example/")),
    "an issuer that begins alike": lambda: token(claims(iss=ISSUER + "evil")),
    "no issuer": lambda: token(claims(iss=None)),
    "another audience": lambda: token(claims(aud="other")),
    "no audience": lambda: token(claims(aud=None)),
    "an empty list of audiences": lambda: token(claims(aud=[])),
}


@pytest.fixture(scope="module")
def jwks_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("jwks") / "jwks.json"
    path.write_text(json.dumps(JWKS))
    return path


@pytest.fixture(scope="module")
def settings_with_tokens(jwks_file):
    return {"jwt_jwks": str(jwks_file), "jwt_issuer": ISSUER, "jwt_audience": AUDIENCE}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory, published_models, settings_with_tokens):
    """Calls a service that takes tokens, and API keys too."""
    folder = tmp_path_factory.mktemp("tokens")
    keys.create_key(folder / "keys.json", "shop", [Scope.PREDICT], None)
    settings = Settings(
        state_dir=folder / "state",
        model_cache_dir=folder / "cache",
        model_dir=published_models.path,
        api_keys_file=folder / "keys.json",
        **settings_with_tokens,
    )
    with running_app(settings) as app:
        yield app.test_client()


def predict(client, text):
    return client.post("/predict", json={"features": WINE}, headers={"Authorization": f"Bearer {text}"})


@pytest.mark.parametrize("make", GOOD.values(), ids=GOOD)
def test_a_good_token_counts_again_and_again(guarded, make):
    text = make()

    assert [predict(guarded, text).status_code for _ in range(2)] == [200, 200]


@pytest.mark.parametrize("make", BAD.values(), ids=BAD)
def test_a_bad_token_counts_for_nothing(guarded, make):
    answer = predict(guarded, make())

    assert answer.status_code == 401
    assert answer.json["code"] == "not_authenticated"
    assert 'error="invalid_token"' in answer.headers["WWW-Authenticate"]


@pytest.mark.parametrize("scope", ["", "openid", "predictx", "PREDICT", 1, {"predict": True}, [1], "model:read"])
def test_a_token_without_the_scope_is_not_enough(guarded, scope):
    assert predict(guarded, token(claims(scope=scope))).status_code == 403


def test_a_token_is_none_as_x_api_key(guarded):
    answer = guarded.post("/predict", json={"features": WINE}, headers={"X-API-Key": token()})

    assert answer.status_code == 401


def test_a_token_whose_subject_is_half_a_character_is_counted_like_any_other(
    run, settings, folder, models, settings_with_tokens
):
    folder.upload(models.fives_and_sixes.content)
    client = run(replace(settings, rate_limit=Rate(1, 3600), **settings_with_tokens)).test_client()
    odd = jwt.api_jws.encode(json.dumps(claims(sub="\ud800")).encode(), RSA, "RS256", headers={"kid": "rsa"})

    assert [predict(client, odd).status_code for _ in range(2)] == [200, 429]


def test_the_providers_words_can_be_translated(run, settings, folder, models, settings_with_tokens):
    folder.upload(models.fives_and_sixes.content)
    mapped = {"jwt_scope_claim": "roles", "jwt_scopes": (("Wine.Ask", "predict"), ("Wine.Admin", "model:write"))}
    client = run(replace(settings, **settings_with_tokens, **mapped)).test_client()

    assert predict(client, token(claims(roles=["Wine.Ask"]))).status_code == 200
    assert predict(client, token(claims(roles=["Wine.Admin", "predict"]))).status_code == 403


# The provider


class Provider:
    """What an identity provider does as seen from here; *asked* counts, and *trouble* is what asking raises."""

    def __init__(self):
        self.document = {"keys": [jwk(RSA, "rsa")]}
        self.asked = 0
        self.trouble = None

    def fetch(self):
        self.asked += 1
        if self.trouble is not None:
            raise self.trouble
        return json.dumps(self.document).encode()

    def tokens(self, fresh_seconds=300.0):
        public_keys = PublicKeys(self.fetch, ["RS256"], fresh_seconds)
        return Tokens(public_keys, issuer=ISSUER, audience=AUDIENCE, scope_claim="scope", scopes={})


def test_the_provider_is_asked_once_for_many_tokens():
    provider = Provider()
    tokens = provider.tokens()

    assert all(tokens.find(token(claims(sub=str(number)))) for number in range(20))
    assert provider.asked == 1


def test_made_up_key_ids_do_not_make_us_ask_again_and_again():
    provider = Provider()
    tokens = provider.tokens()

    assert not any(tokens.find(token(kid=str(number))) for number in range(50))
    assert provider.asked == 1


TROUBLES = [OSError("away"), http.client.BadStatusLine("SSH-2.0"), http.client.IncompleteRead(b""), RecursionError()]


@pytest.mark.parametrize("trouble", TROUBLES, ids=lambda trouble: type(trouble).__name__)
def test_known_keys_count_on_while_the_provider_is_away(trouble):
    provider = Provider()
    tokens = provider.tokens(fresh_seconds=0.0)
    remembered = token()
    tokens.find(remembered)
    provider.trouble = trouble

    assert tokens.find(remembered)
    assert tokens.find(token(claims(sub="another")))


@pytest.mark.parametrize("trouble", TROUBLES, ids=lambda trouble: type(trouble).__name__)
def test_before_any_key_is_known_no_token_is_called_a_bad_one(trouble):
    provider = Provider()
    provider.trouble = trouble

    with pytest.raises(IdentityProviderUnavailable):
        provider.tokens().find(token())


def test_what_is_logged_of_a_provider_that_is_away_shows_no_address(caplog):
    provider = Provider()
    provider.trouble = http.client.InvalidURL("/jwks?token=s3cret")

    with pytest.raises(IdentityProviderUnavailable):
        provider.tokens().find(token())

    (record,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert (record.getMessage(), record.reason) == ("the identity provider's keys cannot be had", "InvalidURL")
    assert record.exc_info is None


def test_a_new_key_of_the_provider_is_taken_and_an_old_one_forgotten():
    provider = Provider()
    tokens = provider.tokens(fresh_seconds=0.0)
    old = token()
    assert tokens.find(old)
    provider.document = {"keys": [jwk(OTHER_RSA, "new")]}

    assert tokens.find(token(key=OTHER_RSA, kid="new"))
    assert tokens.find(old) is None


def test_without_any_key_of_the_provider_tokens_cannot_be_checked(run, settings, folder, models):
    folder.upload(models.fives_and_sixes.content)
    nobody = {"jwt_jwks": "http://127.0.0.1:9/jwks", "jwt_issuer": ISSUER, "jwt_audience": AUDIENCE}
    client = run(replace(settings, **nobody)).test_client()

    answer = predict(client, token())

    assert answer.status_code == 503
    assert answer.json["code"] == "identity_provider_unavailable"
    assert int(answer.headers["Retry-After"]) >= 1


def test_keys_come_by_http_from_where_the_operator_said_and_no_redirect_is_followed(run, settings, folder, models):
    folder.upload(models.fives_and_sixes.content)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            content = json.dumps(JWKS).encode()
            self.send_response(302 if self.path == "/moved" else 200)
            self.send_header("Location", "/jwks")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        place = f"http://127.0.0.1:{server.server_port}"
        named = {"jwt_issuer": ISSUER, "jwt_audience": AUDIENCE}
        direct = run(replace(settings, jwt_jwks=f"{place}/jwks", **named)).test_client()
        moved = replace(settings, jwt_jwks=f"{place}/moved", state_dir=settings.state_dir / "other", **named)
        statuses = predict(direct, token()).status_code, predict(run(moved).test_client(), token()).status_code
        server.shutdown()

    assert statuses == (200, 503)


@pytest.mark.parametrize(
    "changes",
    [
        {"jwt_jwks": "http://id.example/jwks"},
        {"jwt_jwks": "ftp://id.example/jwks"},
        {"jwt_jwks": "/nowhere/jwks.json"},
        {"jwt_jwks": __file__},
        {"jwt_scopes": (("a", "admin"),)},
        {"jwt_algorithms": ("ES512",)},
    ],
    ids=str,
)
def test_what_cannot_work_stops_the_start(run, settings, settings_with_tokens, changes):
    with pytest.raises(InvalidSetting, match="JWT_"):
        run(replace(settings, **(settings_with_tokens | changes)))
