"""PyPI's jwcrypto, for tests/tests/interop.rs: one JSON request a line on standard input, one JSON answer a line on standard output."""

import json
import sys

from jwcrypto import jwe, jwk, jws
from jwcrypto.common import base64url_decode, base64url_encode


def key_of(request):
    return jwk.JWK(**request["jwk"])


def sign(request):
    token = jws.JWS(base64url_decode(request["payload"]))
    token.allowed_algs = [request["alg"]]
    header = {"alg": request["alg"], **request["header"]}
    token.add_signature(key_of(request), protected=json.dumps(header))
    return {"token": token.serialize(compact=True)}


def verify(request):
    token = jws.JWS()
    token.allowed_algs = [request["alg"]]
    token.deserialize(request["token"], key_of(request))
    return {"payload": base64url_encode(token.payload), "header": token.jose_header}


def seal(request):
    header = {"alg": "ECDH-ES+A256KW", "enc": "A256GCM", **request["header"]}
    message = jwe.JWE(
        base64url_decode(request["plaintext"]),
        protected=json.dumps(header),
        recipient=key_of(request),
        algs=["ECDH-ES+A256KW", "A256GCM"],
    )
    return {"jwe": message.serialize(compact=True)}


def open_jwe(request):
    message = jwe.JWE(algs=[request["alg"], "A256GCM"])
    message.deserialize(request["jwe"], key_of(request))
    return {"plaintext": base64url_encode(message.payload), "header": message.jose_header}


def thumbprint(request):
    return {"thumbprint": key_of(request).thumbprint()}


OPERATIONS = {"sign": sign, "verify": verify, "seal": seal, "open": open_jwe, "thumbprint": thumbprint}

for line in sys.stdin:
    request = json.loads(line)
    try:
        answer = OPERATIONS[request["operation"]](request)
    except Exception as error:  # whatever it is, the test wants to see it
        answer = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(answer), flush=True)
